# server.sh — what minio, second, third and fourth share; sourced. A server lives in a directory of its own: pid, log, data, env.

skip() {
    echo "SKIP: $*" >&2
    exit 77
}

GO_MINOR_MIN=24 # what MinIO asks for; the others are content with less

go_server() { # PACKAGE VERSION BINARY: a server that is a Go module, built once into the cache
    [ -x "$3" ] && return
    local version bin name
    name=$(basename "$1")
    command -v go >/dev/null || skip "$name is built from source and there is no Go: install Go 1.$GO_MINOR_MIN or newer"
    version=$(go env GOVERSION) # go1.26.8
    [[ $version =~ ^go1\.([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -ge $GO_MINOR_MIN ] ||
        skip "$name needs Go 1.$GO_MINOR_MIN or newer, here is $version: install a newer Go"
    mkdir -p "$(dirname "$3")"
    echo "building $name $2 (once; minutes)" >&2
    bin=$(mktemp -d "$(dirname "$3")/build.XXXXXX")
    GOBIN=$bin CGO_ENABLED=0 nice go install -trimpath -ldflags '-s -w' "$1@$2" >&2 ||
        { rm -rf "$bin"; skip "building $name failed (see above): it needs the network once, or $3 in place"; }
    mv "$bin/$name" "$3" # whole or not at all, also with two builds at once
    rm -rf "$bin"
}

try_ports() { # DIR PATH START: START PORT until something answers on it; the port is in $port
    for _ in 1 2 3 4 5; do
        port=$(free_port)
        "$3" "$1" "$port"
        wait_http "$1" "http://127.0.0.1:$port$2" && return
    done
    tail -5 "$1/log" >&2
    echo "the server did not start, see $1/log" >&2
    exit 1
}

random_hex() { # BYTES
    od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

new_server_dir() { # DIR
    mkdir -p "$1"
    if [ -s "$1/pid" ] && kill -0 "$(cat "$1/pid")" 2>/dev/null; then
        echo "a server runs in $1 already (pid $(cat "$1/pid")): stop it first" >&2
        exit 1
    fi
    rm -rf "$1/data" "$1/pid" "$1/env"
    : >"$1/log"
}

# Detached from the caller, so that `eval "$(... start DIR)"` returns and a test's death does not take it along unseen:
# the pid file is there for stop.
run_server() { # DIR COMMAND...
    local dir=$1
    shift
    setsid "$@" >>"$dir/log" 2>&1 </dev/null &
    echo $! >"$dir/pid"
}

wait_http() { # DIR URL: any HTTP answer will do
    local n
    for n in $(seq 150); do
        kill -0 "$(cat "$1/pid")" 2>/dev/null || return 1
        curl -s -o /dev/null --max-time 2 --noproxy '*' "$2" && return 0
        sleep 0.2
    done
    return 1
}

make_bucket() { # ENDPOINT KEY SECRET BUCKET
    python3 "$HERE/make_bucket.py" "$@"
}

export_server() { # NAME DIR ENDPOINT KEY SECRET: makes the bucket, prints the exports
    local bucket
    bucket=varve-$(random_hex 4)
    make_bucket "$3" "$4" "$5" "$bucket" >&2
    {
        echo "export $1_ENDPOINT=$3 $1_ACCESS_KEY=$4 $1_SECRET_KEY=$5 $1_BUCKET=$bucket $1_REGION=us-east-1"
        echo "export $1_PID_FILE=$2/pid"
        echo "export AWS_ENDPOINT_URL_S3=$3 AWS_ACCESS_KEY_ID=$4 AWS_SECRET_ACCESS_KEY=$5 AWS_REGION=us-east-1"
    } | tee "$2/env"
}

stop() { # DIR
    local pid n
    [ -s "$1/pid" ] || return 0
    pid=$(cat "$1/pid")
    if kill "$pid" 2>/dev/null; then
        for n in $(seq 100); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -9 "$pid" 2>/dev/null || true
    fi
    rm -rf "$1/data" "$1/pid" "$1/env"
}

server_main() { # ACTION DIR
    case ${1-} in
    build) build ;;
    start | stop)
        [ -n "${2-}" ] || { echo "usage: $(basename "$0") start|stop DIR" >&2; exit 2; }
        mkdir -p "$2"
        "$1" "$(cd "$2" && pwd)"
        ;;
    *)
        sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2
        exit 2
        ;;
    esac
}
