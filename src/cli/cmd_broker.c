/* cmd_broker.c — `varve broker`: reads the configuration and becomes the broker. */
#include "cli.h"

#include "broker.h"
#include "call.h"

#include <stdio.h>
#include <stdlib.h>

static const struct vv_opt opts[] = {
    VV_OPT_CONFIG,
    VV_OPT_SET,
    {"debug", 0, NULL, "Log more."},
    {"print-config-reference", 0, NULL, "Print every configuration key (config/CONFIGURATION.md) and end."},
    {0},
};

static int run(const struct vv_args *a)
{
    struct vv_broker_config config;
    struct vv_error e = {0};
    size_t files_n, sets_n;
    if (vv_arg_given(a, "print-config-reference")) {
        vv_config_reference(stdout);
        return VV_EXIT_DONE;
    }
    const char **files = vv_arg_all(a, "config", &files_n), **sets = vv_arg_all(a, "set", &sets_n);
    int rc = vv_config_load(&vv_env_posix, files, files_n, sets, sets_n, &config, &e);
    free(files);
    free(sets);
    if (rc)
        rc = rc == VV_E_USAGE ? vv_cli_usage(a, "%s", e.text) : vv_cli_fail(a, "%s", e.text);
    if (vv_arg_given(a, "debug"))
        vlog_level = VV_DEBUG;
    if (!rc) {
        vv_config_log_warnings(&config);
        rc = vv_broker_main(&vv_env_posix, &config, &vv_api_net_handler);
    }
    vv_config_release(&config);
    return rc;
}

const struct vv_command vv_cmd_broker = {
    .name = "broker",
    .words_max = 0,
    .summary = "Run a broker.",
    .text = "Without options it serves 127.0.0.1:9092 and keeps everything under ./varve-data. FILE is a\n"
            "server.properties: Apache Kafka's keys work, ours are in config/CONFIGURATION.md. When it can serve it\n"
            "prints one line on stdout,\n\n"
            "  varve ready: kafka=HOST:PORT[,…] metrics=HOST:PORT|- tier=URL retention=… data=DIR\n\n"
            "and it ends cleanly on SIGTERM or SIGINT. Messages go to stderr.\n\n"
            "  varve broker --set data.dir=/var/lib/varve --set listeners=PLAINTEXT://0.0.0.0:9092 \\\n"
            "               --set advertised.listeners=PLAINTEXT://$(hostname):9092\n"
            "  varve broker --set tier.url=s3://bucket/prefix --set tier.s3.endpoint=http://127.0.0.1:9000",
    .opts = opts,
    .run = run,
};
