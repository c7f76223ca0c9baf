/* cli.h — the command line: what a subcommand is, its arguments, its exit codes.
 *
 * A subcommand is one const struct vv_command in a file of its own (cmd_*.c) and one row of
 * VV_COMMANDS: help, parsing and dispatch come from there. One thread. */
#ifndef VARVE_CLI_H
#define VARVE_CLI_H
#include "varve/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum vv_exit { VV_EXIT_DONE = 0, VV_EXIT_FAILED = 1, VV_EXIT_USAGE = 2, VV_EXIT_DAMAGE = 3 };

struct vv_opt {
    const char *name; /* without --; NULL ends the list */
    char letter;      /* -o; 0 = none */
    const char *arg;  /* what the value is called; NULL = a switch */
    const char *doc;
};

struct vv_args;
struct vv_command {
    const char *name;         /* "topic create" */
    const char *words;        /* operands in the usage line, "NAME..." */
    int words_min, words_max; /* -1 = any number */
    const char *summary;      /* one line of the overview */
    const char *text;         /* what --help says below the usage */
    const struct vv_opt *opts;
    int (*run)(const struct vv_args *a); /* an exit code */
};

#define VV_COMMANDS(X)                                                                             \
    X(broker)                                                                                      \
    X(topic_list)                                                                                  \
    X(topic_create)                                                                                \
    X(topic_describe)                                                                              \
    X(topic_alter)                                                                                 \
    X(topic_delete)                                                                                \
    X(topic_undelete)                                                                              \
    X(group_list)                                                                                  \
    X(group_describe)                                                                              \
    X(group_reset)                                                                                 \
    X(group_delete)                                                                                \
    X(tier_migrate)                                                                                \
    X(tier_status)                                                                                 \
    X(replay)                                                                                      \
    X(ls)                                                                                          \
    X(inspect)                                                                                     \
    X(verify)                                                                                      \
    X(doctor)                                                                                      \
    X(config_reference)                                                                            \
    X(config_check)                                                                                \
    X(bench_produce)                                                                               \
    X(bench_fetch)                                                                                 \
    X(bench_latency)                                                                               \
    X(bench_s3)                                                                                    \
    X(bench_machine)                                                                               \
    X(demo_ev)
#define VV_X(id) extern const struct vv_command vv_cmd_##id;
VV_COMMANDS(VV_X)
#undef VV_X

/* ---- arguments ---- */
struct vv_args {
    const struct vv_command *command;
    const struct vv_opt **opts; /* given options in order, with */
    const char **values;        /* their values (NULL for switches) */
    size_t count;
    const char **words;
    size_t word_count;
};
const char *vv_arg(const struct vv_args *a, const char *name); /* last value; NULL = not given */
bool vv_arg_given(const struct vv_args *a, const char *name);
/* All values of a repeated option, in order; malloc'ed, NULL-terminated. */
const char **vv_arg_all(const struct vv_args *a, const char *name, size_t *n);
/* Last value as a number in [min, max], or initial when not given. False after a message: exit
 * with VV_EXIT_USAGE. */
bool vv_arg_number(const struct vv_args *a, const char *name, int64_t initial, int64_t min,
                   int64_t max, int64_t *out);

/* ---- saying ---- */
/* "varve topic create: …" on stderr; return their exit code. */
int vv_cli_fail(const struct vv_args *a, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
int vv_cli_usage(const struct vv_args *a, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

int vv_cli_main(int argc, char **argv);

#define VV_OPT_BOOTSTRAP                                                                           \
    {                                                                                              \
        "bootstrap", 'b', "HOST:PORT", "A broker to ask first (default 127.0.0.1:9092)."           \
    }
#define VV_OPT_OUTPUT                                                                              \
    {                                                                                              \
        "output", 'o', "FORMAT", "table (default) or json."                                        \
    }
#define VV_OPT_CONFIG                                                                              \
    {                                                                                              \
        "config", 'c', "FILE", "A server.properties; may be repeated, later ones win."             \
    }
#define VV_OPT_SET                                                                                 \
    {                                                                                              \
        "set", 's', "KEY=VALUE", "One configuration key; wins over every file. May be repeated."   \
    }
#endif
