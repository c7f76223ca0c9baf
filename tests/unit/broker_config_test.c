/* The broker's configuration: properties syntax, checks, precedence, listeners, aliases, warnings,
 * run-time changes. */
#include "config.h"
#include "config_foreign.h"
#include "config_properties.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

/* ---- properties ---- */

struct seen {
    char text[2048];
};

static int note(void *ctx, int line, const char *key, const char *value)
{
    struct seen *s = ctx;
    size_t n = strlen(s->text);
    snprintf(s->text + n, sizeof s->text - n, "%d[%s][%s]", line, key, value);
    return 0;
}

static const char *props(const char *text)
{
    static struct seen s;
    static struct vv_error e;
    s.text[0] = 0;
    if (vv_properties_each(text, strlen(text), note, &s, &e)) return e.text;
    return s.text;
}

static void properties_syntax(void **state)
{
    (void)state;
    assert_string_equal(props(""), "");
    assert_string_equal(props("a=b"), "1[a][b]");
    assert_string_equal(props("\xef\xbb\xbf"
                              "a=b\r\nc : d\re f\n"),
                        "1[a][b]2[c][d]3[e][f]");
    assert_string_equal(props("# no\n  ! no\n\n a = b \n"), "4[a][b]");
    assert_string_equal(props("a==b:c"), "1[a][=b:c]");
    assert_string_equal(props("key"), "1[key][]");
    assert_string_equal(props("list=one,\\\n   two,\\\n\tthree\nx=1"),
                        "1[list][one,two,three]4[x][1]");
    assert_string_equal(props("a=b\\\\\nc=d"), "1[a][b\\]2[c][d]");
    assert_string_equal(props("a\\=b\\:c\\ d=e"), "1[a=b:c d][e]");
    assert_string_equal(props("a=\\u00e4\\tx\\q"), "1[a][\xc3\xa4\txq]");
    assert_string_equal(props("a=\\ud83d\\ude00"), "1[a][\xf0\x9f\x98\x80]");
    assert_string_equal(props("a=b\\"), "1[a][b]");
    assert_string_equal(props("a=b\n# c\\\nd=e"), "1[a][b]3[d][e]");
}

static void properties_refused(void **state)
{
    (void)state;
    assert_non_null(strstr(props("x=1\na=\\u00g1"), "line 2"));
    assert_non_null(strstr(props("a=\\u12"), "line 1"));
    assert_non_null(strstr(props("a=\\ud83d"), "line 1"));
    assert_non_null(strstr(props("=x"), "no key"));
    struct vv_error e = {0};
    struct seen s = {""};
    assert_int_equal(vv_properties_each("a=b\0c", 5, note, &s, &e), VV_E_CONFIG);
}

/* ---- loading ---- */

struct loaded {
    struct vv_broker_config c;
    struct vv_error e;
    int rc;
};

/* file: the text of a server.properties or NULL; sets: a NULL-terminated list. */
static struct loaded load(const char *file, const char *const *sets)
{
    struct loaded l = {0};
    char path[] = "/tmp/varve-config-XXXXXX";
    const char *files[1] = {path};
    size_t n = 0;
    if (file) {
        int fd = mkstemp(path);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, file, strlen(file)), (ssize_t)strlen(file));
        close(fd);
    }
    while (sets && sets[n])
        n++;
    l.rc = vv_config_load(&vv_env_posix, files, file != NULL, sets, n, &l.c, &l.e);
    if (file) unlink(path);
    return l;
}

#define SETS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void refused(const char *file, const char *const *sets, const char *what)
{
    struct loaded l = load(file, sets);
    if (!l.rc || !strstr(l.e.text, what))
        fail_msg("rc %d, expected '%s' in '%s'", l.rc, what, l.e.text);
    vv_config_release(&l.c);
}

static void no_file_is_fine(void **state)
{
    (void)state;
    struct loaded l = load(NULL, NULL);
    assert_int_equal(l.rc, 0);
    assert_int_equal(l.c.id, 1);
    assert_string_equal(l.c.data, "./varve-data");
    assert_string_equal(l.c.log, "./varve-data/log");
    assert_string_equal(l.c.tier, "fs:./varve-data/tier");
    assert_int_equal(l.c.listen_count, 1);
    assert_string_equal(l.c.listen[0].host, "127.0.0.1");
    assert_int_equal(l.c.listen[0].port, 9092);
    assert_string_equal(l.c.advertised[0].host, "127.0.0.1");
    assert_true(l.c.metrics_on);
    assert_int_equal(l.c.metrics.port, 9464);
    assert_true(l.c.retention_ms == -1);
    assert_true(l.c.log_local_retention_ms == 86400000);
    assert_true(l.c.log_local_retention_bytes == 1073741824);
    assert_true(l.c.roll_ms == 168LL * 3600000);
    assert_true(l.c.flush_ms == INT64_MAX);
    assert_int_equal(l.c.flush_acks, VV_FLUSH_ALL);
    assert_int_equal(l.c.message_max_bytes, 1048588);
    assert_int_equal(vv_config_warning_count(&l.c), 0);
    vv_config_release(&l.c);
}

static const char stock_kraft[] =
    "process.roles=broker,controller\nnode.id=7\ncontroller.quorum.bootstrap.servers=localhost:"
    "9093\n"
    "listeners=PLAINTEXT://:9092,CONTROLLER://:9093\ninter.broker.listener.name=PLAINTEXT\n"
    "advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093\n"
    "controller.listener.names=CONTROLLER\n"
    "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL\n"
    "num.network.threads=3\nnum.io.threads=8\nsocket.send.buffer.bytes=102400\n"
    "socket.receive.buffer.bytes=102400\nsocket.request.max.bytes=104857600\n"
    "log.dirs=/tmp/kraft-combined-logs\nnum.partitions=1\nnum.recovery.threads.per.data.dir=2\n"
    "offsets.topic.replication.factor=1\ntransaction.state.log.min.isr=2\n"
    "log.retention.hours=168\nlog.segment.bytes=1073741824\nlog.retention.check.interval.ms="
    "300000\n";

static void stock_file_starts(void **state)
{
    (void)state;
    struct loaded l = load(stock_kraft, NULL);
    if (l.rc) fail_msg("%s", l.e.text);
    assert_int_equal(l.c.id, 7);
    assert_int_equal(l.c.listen_count, 1);
    assert_string_equal(l.c.listen[0].host, "");
    assert_string_equal(l.c.advertised[0].host, "localhost");
    assert_int_equal(l.c.advertised[0].port, 9092);
    assert_string_equal(l.c.log, "/tmp/kraft-combined-logs");
    assert_string_equal(l.c.tier, "fs:/tmp/kraft-combined-logs-tier");
    assert_int_equal(l.c.reactor_count, 3);
    assert_true(l.c.retention_ms == 168LL * 3600000);
    assert_int_equal(vv_config_warning_count(&l.c), 1); /* one for everything KRaft */
    assert_non_null(strstr(vv_config_warning(&l.c, 0), "CONTROLLER listener"));
    assert_non_null(strstr(vv_config_warning(&l.c, 0), "controller.quorum.bootstrap.servers"));
    vv_config_release(&l.c);
}

static void sets_win(void **state)
{
    (void)state;
    struct loaded l = load("log.dirs=/from/file\nnum.partitions=3\nlog.retention.hours=1\n",
                           SETS("data.dir=/d", "num.partitions=5", "log.retention.ms=-1",
                                "listeners=PLAINTEXT://127.0.0.1:0", "metrics.listener=off"));
    assert_int_equal(l.rc, 0);
    assert_string_equal(l.c.log, "/d/log");
    assert_string_equal(l.c.tier, "fs:/d/tier");
    assert_string_equal(l.c.data, "/d");
    assert_int_equal(l.c.num_partitions, 5);
    assert_true(l.c.retention_ms == -1);
    assert_int_equal(l.c.listen[0].port, 0);
    assert_false(l.c.metrics_on);
    vv_config_release(&l.c);
    l = load("log.retention.hours=2\nlog.retention.minutes=5\n", NULL);
    assert_true(l.c.retention_ms == 300000);
    vv_config_release(&l.c);
    l = load("data.dir=/a\nlog.dirs=/b\n", NULL);
    assert_string_equal(l.c.log, "/b");
    assert_string_equal(l.c.tier, "fs:/a/tier");
    vv_config_release(&l.c);
}

static void the_tier(void **state)
{
    (void)state;
    struct loaded l =
        load(NULL, SETS("tier.url=s3://b/p", "tier.s3.endpoint=http://127.0.0.1:9000"));
    assert_string_equal(l.c.tier, "s3://b/p");
    assert_true(l.c.tier_s3_path_style);
    vv_config_release(&l.c);
    l = load("remote.log.storage.system.enable=false\n", NULL);
    assert_null(l.c.tier);
    vv_config_release(&l.c);
    l = load("rsm.config.storage.s3.bucket.name=aiven\nrsm.config.key.prefix=x/\n"
             "rsm.config.storage.s3.region=eu-north-1\nrsm.config.storage.aws.access.key.id=AK\n"
             "rsm.config.storage.aws.secret.access.key=hush\nrsm.config.chunk.size=4194304\n"
             "rsm.config.storage.s3.multipart.upload.part.size=26214400\n"
             "rsm.config.storage.s3.storage.class=STANDARD_IA\n"
             "remote.log.storage.manager.impl.prefix=rsm.config.\n",
             NULL);
    assert_int_equal(l.rc, 0);
    assert_string_equal(l.c.tier, "s3://aiven/x/");
    assert_string_equal(l.c.tier_s3_region, "eu-north-1");
    assert_int_equal(l.c.tier_s3_part_bytes, 26214400);
    assert_string_equal(l.c.tier_s3_storage_class, "STANDARD_IA");
    assert_string_equal(l.c.tier_s3_secret_access_key, "hush");
    assert_false(l.c.tier_s3_path_style);
    assert_int_equal(vv_config_warning_count(&l.c), 0);
    struct vv_config_value v;
    assert_true(vv_config_get(&l.c, "tier.s3.secret.access.key", &v));
    assert_true(v.sensitive && !v.value);
    assert_true(vv_config_get(&l.c, "rsm.config.storage.aws.secret.access.key", &v));
    assert_true(v.sensitive && !v.value);
    vv_config_release(&l.c);
    refused(NULL, SETS("tier.url=http://x"), "tier.url=http://x");
    refused(NULL, SETS("tier.verify=some"), "must be one of footer|full");
}

static void bad_input_is_refused(void **state)
{
    (void)state;
    refused("a=b\n", NULL, ":1: unknown key a");
    refused("# x\n\nnum.partition=3\n", NULL,
            ":3: unknown key num.partition; did you mean num.partitions?");
    refused("retention.ms=3\n", NULL, "did you mean log.retention.ms?");
    refused("num.partitions=0\n", NULL, ":1: num.partitions=0: must be from 1");
    refused("num.partitions=3x\n", NULL, "not a whole number");
    refused("num.partitions=99999999999999999999\n", NULL, "not a whole number");
    refused("num.partitions=\n", NULL, "not a whole number");
    refused("log.preallocate=yes\n", NULL, "must be true or false");
    refused("log.segment.bytes=1000\n", NULL, "must be from 65536");
    refused("log.dirs=/a,/b\n", NULL, "one directory");
    refused("log.flush.acks=some\n", NULL, "must be one of all|leader|none");
    refused("log.cleanup.policy=compact\n", NULL, "cannot be compacted");
    refused("process.roles=controller\n", NULL, "controller-only");
    refused("node.id=1\nbroker.id=2\n", NULL, "broker.id=2 is not node.id=1");
    refused("metrics.listener=here\n", NULL, "metrics.listener");
    refused(NULL, SETS("nokey"), "expected KEY=VALUE");
    refused(NULL, SETS("tier.s3.endpiont=x"),
            "--set: unknown key tier.s3.endpiont; did you mean tier.s3.endpoint?");
    struct vv_broker_config c;
    struct vv_error e = {0};
    const char *none = "/nonexistent/server.properties";
    assert_int_equal(vv_config_load(&vv_env_posix, &none, 1, NULL, 0, &c, &e), VV_E_NOENT);
    assert_non_null(strstr(e.text, none));
    vv_config_release(&c);
}

static void listeners(void **state)
{
    (void)state;
    refused(NULL, SETS("listeners=SSL://:9093"), "TLS and SASL are not here yet");
    refused(NULL, SETS("listeners=SASL_PLAINTEXT://:9093"), "TLS and SASL are not here yet");
    refused(NULL, SETS("listeners=OUTSIDE://:9093"), "OUTSIDE has no protocol");
    refused(NULL, SETS("listeners=OUTSIDE://:9093", "listener.security.protocol.map=OUTSIDE:SSL"),
            "speaks SSL");
    refused(NULL, SETS("listeners=PLAINTEXT://a:1,PLAINTEXT://b:2"), "twice");
    refused(NULL, SETS("listeners=PLAINTEXT://a"), "no :PORT");
    refused(NULL, SETS("listeners=PLAINTEXT://a:70000"), "0 to 65535");
    refused(NULL, SETS("listeners=PLAINTEXT://a:x"), "0 to 65535");
    refused(NULL, SETS("listeners=PLAINTEXT://::1:9092"), "brackets");
    refused(NULL, SETS("listeners=localhost:9092"), "NAME://HOST:PORT");
    refused(NULL, SETS("listeners=CONTROLLER://:9093"), "no listener for clients");
    refused(NULL, SETS("listeners="), "no listener for clients");
    refused(NULL, SETS("advertised.listeners=PLAINTEXT://0.0.0.0:9092"), "clients cannot connect");
    refused(NULL, SETS("advertised.listeners=OTHER://h:9092"), "OTHER is not one of listeners");
    refused(NULL, SETS("inter.broker.listener.name=OTHER"), "OTHER is not one of listeners");
    struct loaded l = load(NULL, SETS("listeners=IN://[::1]:9092, OUT://0.0.0.0:0",
                                      "listener.security.protocol.map=IN:PLAINTEXT,OUT:PLAINTEXT",
                                      "advertised.listeners=OUT://broker.example:0"));
    assert_int_equal(l.rc, 0);
    assert_int_equal(l.c.listen_count, 2);
    assert_string_equal(l.c.listen[0].host, "::1");
    assert_string_equal(l.c.advertised[0].host, "::1");
    assert_string_equal(l.c.advertised[1].host, "broker.example");
    assert_int_equal(l.c.advertised[1].port, 0);
    vv_config_release(&l.c);
}

static void warnings(void **state)
{
    (void)state;
    struct loaded l = load("num.replica.fetchers=4\nreplica.lag.time.max.ms=30000\nauto.leader."
                           "rebalance.enable=false\n"
                           "zookeeper.connect=zk:2181\nlog.cleaner.io.buffer.load.factor=0.90\n"
                           "authorizer.class.name=x.Y\nssl.keystore.password=hush\n",
                           NULL);
    assert_int_equal(l.rc, 0);
    assert_int_equal(vv_config_warning_count(&l.c), 3);
    bool cluster = false;
    for (size_t i = 0; i < 3; i++) {
        const char *w = vv_config_warning(&l.c, i);
        assert_null(strstr(w, "hush"));
        assert_null(strstr(w, "replica.lag.time.max.ms")); /* Kafka's default */
        if (strstr(w, "num.replica.fetchers"))
            cluster = strstr(w, "auto.leader.rebalance.enable") != NULL;
    }
    assert_true(cluster);
    vv_config_release(&l.c);
    l = load("config.unknown=warn\nnobody.knows=1\n", NULL);
    assert_int_equal(l.rc, 0);
    assert_non_null(strstr(vv_config_warning(&l.c, 0), "nobody.knows"));
    vv_config_release(&l.c);
}

static void dynamic(void **state)
{
    (void)state;
    struct loaded l = load("log.retention.hours=1\n", NULL);
    struct vv_broker_config c;
    struct vv_error e = {0};
    struct vv_config_value v;
    assert_int_equal(vv_config_clone(&l.c, &c), 0);
    vv_config_release(&l.c);
    assert_true(c.retention_ms == 3600000);
#define ALTER(scope, key, value) vv_config_set_dynamic(&c, scope, key, value, &e)
    struct vv_config_synonym syn[VV_CONFIG_SYNONYMS_MAX];
    assert_int_equal(vv_config_synonyms(&c, "log.retention.ms", syn), 1);
    assert_int_equal(ALTER(VV_ALTER_ALL, "log.retention.ms", "7000"), 0);
    assert_true(c.retention_ms == 7000); /* stronger than the file's hours */
    assert_int_equal(ALTER(VV_ALTER_BROKER, "log.retention.ms", "5000"), 0);
    assert_true(c.retention_ms == 5000);
    assert_true(vv_config_get(&c, "log.retention.ms", &v));
    assert_int_equal(v.source, VV_SOURCE_DYNAMIC_BROKER);
    assert_int_equal(vv_config_synonyms(&c, "log.retention.ms", syn), 3);
    assert_string_equal(syn[1].value, "7000");
    assert_int_equal(syn[1].source, VV_SOURCE_DYNAMIC_DEFAULT);
    assert_int_equal(syn[2].source, VV_SOURCE_DEFAULT);
    assert_int_equal(ALTER(VV_ALTER_BROKER, "log.retention.ms", "-7"), VV_INVALID_REQUEST);
    assert_non_null(strstr(e.text, "Invalid value -7 for configuration log.retention.ms: must be"));
    assert_int_equal(ALTER(VV_ALTER_BROKER, "log.cleanup.policy", "compact"), VV_INVALID_REQUEST);
    assert_string_equal(c.log_cleanup_policy, "delete");
    assert_int_equal(ALTER(VV_ALTER_BROKER, "listeners", "PLAINTEXT://:1"), VV_INVALID_REQUEST);
    assert_non_null(strstr(e.text, "Cannot update these configs dynamically: listeners"));
    assert_int_equal(ALTER(VV_ALTER_ALL, "no.such", "1"), VV_INVALID_REQUEST);
    assert_int_equal(ALTER(VV_ALTER_ALL, "listeners", NULL), 0);
    assert_true(c.retention_ms == 5000);
    assert_int_equal(ALTER(VV_ALTER_BROKER, "log.retention.ms", NULL), 0);
    assert_true(c.retention_ms == 7000);
    assert_int_equal(ALTER(VV_ALTER_ALL, "log.retention.ms", NULL), 0);
    assert_true(c.retention_ms == 3600000);
#undef ALTER
    vv_config_release(&c);
}

static int ordered(void *ctx, const struct vv_config_value *v)
{
    const char **last = ctx;
    assert_true(!*last || strcmp(*last, v->name) < 0);
    *last = v->name;
    return 0;
}

static void tables_are_sound(void **state)
{
    (void)state;
    struct vv_error e;
    struct loaded l = load(NULL, NULL);
    const char *last = NULL;
    assert_int_equal(vv_config_each(&l.c, ordered, &last), 0);
    vv_config_release(&l.c);
    for (size_t i = 0; i < vv_config_key_count; i++) {
        const struct vv_config_key *k = &vv_config_keys[i];
        assert_null(vv_foreign_find(k->name));
        if (k->initial && vv_config_check(k, k->initial, &e)) fail_msg("%s", e.text);
        assert_int_equal(k->doc[strlen(k->doc) - 1], '.');
    }
    for (size_t i = 1; i < vv_foreign_key_count; i++)
        assert_true(strcmp(vv_foreign_keys[i - 1].name, vv_foreign_keys[i].name) < 0);
}

static void reference_is_up_to_date(void **state)
{
    (void)state;
    char *now = NULL;
    size_t n = 0;
    FILE *to = open_memstream(&now, &n);
    vv_config_reference(to);
    fclose(to);
    char *kept = calloc(1, n + 2);
    FILE *from = fopen(VARVE_SOURCE_DIR "/config/CONFIGURATION.md", "r");
    assert_non_null(from);
    size_t got = fread(kept, 1, n + 1, from);
    fclose(from);
    if (got != n || memcmp(now, kept, n))
        fail_msg("config/CONFIGURATION.md is stale: build/varve config reference > "
                 "config/CONFIGURATION.md");
    free(kept);
    free(now);
}

static void sample_loads(void **state)
{
    (void)state;
    const char *file = VARVE_SOURCE_DIR "/config/server.properties";
    struct vv_broker_config c;
    struct vv_error e = {0};
    if (vv_config_load(&vv_env_posix, &file, 1, NULL, 0, &c, &e)) fail_msg("%s", e.text);
    assert_int_equal(vv_config_warning_count(&c), 0);
    vv_config_release(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(properties_syntax),
        cmocka_unit_test(properties_refused),
        cmocka_unit_test(no_file_is_fine),
        cmocka_unit_test(stock_file_starts),
        cmocka_unit_test(sets_win),
        cmocka_unit_test(the_tier),
        cmocka_unit_test(bad_input_is_refused),
        cmocka_unit_test(listeners),
        cmocka_unit_test(warnings),
        cmocka_unit_test(dynamic),
        cmocka_unit_test(tables_are_sound),
        cmocka_unit_test(reference_is_up_to_date),
        cmocka_unit_test(sample_loads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
