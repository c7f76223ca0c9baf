/* cmd_broker.c — `varve broker`: configuration from files and the command line, then the broker until a signal. */
#include "admin.h"
#include "cli.h"

#include "broker.h"
#include "call.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct vv_opt opts[] = {
    VV_OPT_CONFIG,
    VV_OPT_SET,
    {"data-dir", 'd', "DIR", "Everything below DIR: short for --set data.dir=DIR (default ./varve-data)."},
    {"take-over", 0, NULL, "Claim a bucket whose other writer is surely gone: --set tier.take.over=true."},
    {"restore", 0, "URL", "Seed a new cluster from somebody else's bucket, which is only read (--set tier.restore.url=URL)."},
    {"replica", 0, NULL, "A read-only replica: follow somebody else's bucket (tier.url), never write to it (--set tier.replica=true)."},
    {"as-of", 0, "TIME", "With --restore: its state as of then (RFC 3339 or ts:MILLIS)."},
    {0},
};

/* --set and its short forms in the order given: the later one wins. Strings to free are in *made. */
static const char **gather_sets(const struct vv_args *a, size_t *n, char **made)
{
    const char **sets = calloc(a->count + 1, sizeof *sets);
    size_t k = 0;
    *n = 0;
    for (size_t i = 0; sets && i < a->count; i++) {
        const char *name = a->opts[i]->name;
        if (!strcmp(name, "set")) sets[(*n)++] = a->values[i];
        if (!strcmp(name, "take-over")) sets[(*n)++] = "tier.take.over=true";
        if (!strcmp(name, "replica")) sets[(*n)++] = "tier.replica=true";
        const char *key = !strcmp(name, "data-dir") ? "data.dir" : !strcmp(name, "restore") ? "tier.restore.url" : NULL;
        int64_t ms;
        if (key && asprintf(&made[k], "%s=%s", key, a->values[i]) < 0) made[k] = NULL;
        if (!strcmp(name, "as-of") && vv_admin_time(a->values[i], &ms) &&
            asprintf(&made[k], "tier.restore.as.of.ms=%" PRId64, ms) < 0)
            made[k] = NULL;
        if (made[k]) sets[(*n)++] = made[k++];
    }
    return sets;
}

static int run(const struct vv_args *a)
{
    struct vv_broker_config config;
    struct vv_error e = {0};
    size_t files_n, sets_n;
    int64_t ms;
    const char *as_of = vv_arg(a, "as-of");
    if (as_of && !vv_arg(a, "restore")) return vv_cli_usage(a, "--as-of goes with --restore");
    if (as_of && !vv_admin_time(as_of, &ms))
        return vv_cli_usage(a, "--as-of %s: expected a time (2026-03-01T00:00:00Z) or ts:MILLIS", as_of);
    char **made = calloc(a->count + 1, sizeof *made);
    if (!made) return vv_cli_fail(a, "out of memory");
    const char **files = vv_arg_all(a, "config", &files_n), **sets = gather_sets(a, &sets_n, made);
    int rc = files && sets ? vv_config_load(&vv_env_posix, files, files_n, sets, sets_n, &config, &e) : VV_E_NOMEM;
    if (!files || !sets)
        rc = vv_cli_fail(a, "out of memory");
    else if (rc)
        rc = rc == VV_E_USAGE ? vv_cli_usage(a, "%s", e.text) : vv_cli_fail(a, "%s", e.text);
    else
        rc = vv_broker_main(&vv_env_posix, &config, &vv_api_net_handler);
    if (files && sets) vv_config_release(&config);
    for (size_t i = 0; made[i]; i++)
        free(made[i]);
    free(made);
    free(files);
    free(sets);
    return rc;
}

const struct vv_command vv_cmd_broker = {
    .name = "broker",
    .words_max = 0,
    .summary = "Serve Kafka clients until SIGTERM.",
    .text =
        "Without options: 127.0.0.1:9092, everything below ./varve-data, the directory ./varve-data/tier as bucket.\n"
        "FILE is a server.properties; Kafka's own works. Messages go to stderr; when clients can come, one line goes "
        "to\n"
        "stdout: varve ready: kafka=HOST:PORT metrics=HOST:PORT tier=URL retention=… data=DIR\n"
        "--restore needs an empty data directory and an empty bucket (tier.url): the new cluster serves at once what the old\n"
        "bucket has, and copies it over in the background; the old one is never written to.\n"
        "--replica needs tier.url, somebody else's bucket: its topics are served as far as they are in the bucket, and followed as they\n"
        "grow; the data directory keeps the offsets of the replica's own consumer groups. Reading and listing are all it may do there.\n"
        "A port of 0 takes any free port. SIGTERM and SIGINT end it cleanly. Every key: varve config reference.",
    .opts = opts,
    .run = run,
};
