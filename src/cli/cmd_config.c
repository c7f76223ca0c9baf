/* cmd_config.c — `varve config …`: the reference, and what a file comes to without starting
 * anything. */
#include "cli.h"

#include "config.h"
#include "table.h"

#include <stdio.h>
#include <stdlib.h>

static int run_reference(const struct vv_args *a)
{
    (void)a;
    vv_config_reference(stdout);
    return VV_EXIT_DONE;
}

const struct vv_command vv_cmd_config_reference = {
    .name = "config reference",
    .words_max = 0,
    .summary = "Print every configuration key (Markdown).",
    .run = run_reference,
};

static const struct vv_opt check_opts[] = {
    VV_OPT_CONFIG, VV_OPT_SET, VV_OPT_OUTPUT, {"all", 'a', NULL, "Defaults too."}, {0},
};

struct listing {
    struct vv_table *table;
    bool all;
};

static int list_value(void *ctx, const struct vv_config_value *v)
{
    struct listing *l = ctx;
    if (v->source == VV_SOURCE_DEFAULT && !l->all) return 0;
    vv_table_cell(l->table, "%s", v->name);
    vv_table_cell(l->table, "%s", v->sensitive ? "(hidden)" : v->value ? v->value : "-");
    vv_table_cell(l->table, "%s", v->source == VV_SOURCE_DEFAULT ? "default" : "set");
    return 0;
}

static int run_check(const struct vv_args *a)
{
    struct vv_broker_config config;
    struct vv_error e = {0};
    size_t files_n, sets_n;
    bool json;
    if (!vv_table_wants_json(a, &json)) return VV_EXIT_USAGE;
    const char **files = vv_arg_all(a, "config", &files_n), **sets = vv_arg_all(a, "set", &sets_n);
    int rc = vv_config_load(&vv_env_posix, files, files_n, sets, sets_n, &config, &e);
    free(files);
    free(sets);
    if (rc) {
        rc = rc == VV_E_USAGE ? vv_cli_usage(a, "%s", e.text) : vv_cli_fail(a, "%s", e.text);
        goto out;
    }
    for (size_t i = 0; i < vv_config_warning_count(&config); i++)
        fprintf(stderr, "warning: %s\n", vv_config_warning(&config, i));
    struct listing l = {vv_table_new("KEY VALUE FROM"), vv_arg_given(a, "all")};
    vv_config_each(&config, list_value, &l);
    rc = vv_table_print(l.table, json);
out:
    vv_config_release(&config);
    return rc;
}

const struct vv_command vv_cmd_config_check = {
    .name = "config check",
    .words_max = 0,
    .summary = "Check a configuration and show what it comes to.",
    .text = "Reads the files and overrides as `varve broker` does, says what is wrong or without "
            "effect, lists\n"
            "what is set. Starts nothing. Secrets are not shown.",
    .opts = check_opts,
    .run = run_check,
};
