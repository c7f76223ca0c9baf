/* cli.c — dispatch, option parsing and help, from the tables in cli.h and the commands. */
#include "cli.h"

#include "varve/bytes.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct vv_command *const commands[] = {
#define VV_X(id) &vv_cmd_##id,
    VV_COMMANDS(VV_X)
#undef VV_X
};

static const struct vv_opt help_opt = {"help", 'h', NULL, "This text."};

static void say_option(FILE *to, const struct vv_opt *o)
{
    char left[64];
    snprintf(left, sizeof left, "%c%c%s --%s%s%s", o->letter ? '-' : ' ',
             o->letter ? o->letter : ' ', o->letter ? "," : " ", o->name, o->arg ? " " : "",
             o->arg ? o->arg : "");
    fprintf(to, "  %-27s %s\n", left, o->doc);
}

static void say_help(FILE *to, const struct vv_command *c)
{
    fprintf(to, "varve %s%s%s%s\n\n%s\n", c->name, c->words ? " " : "", c->words ? c->words : "",
            c->opts && c->opts->name ? " [OPTION]..." : "", c->summary);
    if (c->text) fprintf(to, "\n%s\n", c->text);
    fputs("\nOptions:\n", to);
    for (const struct vv_opt *o = c->opts; o && o->name; o++)
        say_option(to, o);
    say_option(to, &help_opt);
}

static void say_overview(FILE *to)
{
    fputs("Varve keeps event streams for years: a Kafka-protocol broker with hot segments on the "
          "local disk,\n"
          "closed segments in a bucket, and one index over both.\n\nvarve COMMAND [OPTION]...\n\n",
          to);
    for (size_t i = 0; i < VV_COUNT(commands); i++)
        fprintf(to, "  %-17s %s\n", commands[i]->name, commands[i]->summary);
    fputs(
        "\nvarve COMMAND --help says more. Exit codes: 0 done, 1 failed, 2 usage, 3 damage found.\n"
        "First steps: `varve demo ev` shows what it does; `varve broker` serves 127.0.0.1:9092.\n",
        to);
}

/* Lists the subcommands of a group word ("topic"); false when there are none. */
static bool say_group(FILE *to, const char *word)
{
    size_t n = strlen(word);
    bool any = false;
    for (size_t i = 0; i < VV_COUNT(commands); i++)
        if (!strncmp(commands[i]->name, word, n) && commands[i]->name[n] == ' ') {
            if (!any) fprintf(to, "varve %s COMMAND [OPTION]...\n\n", word);
            fprintf(to, "  %-17s %s\n", commands[i]->name, commands[i]->summary);
            any = true;
        }
    return any;
}

/* The command named by the first one or two words; *used says how many. */
static const struct vv_command *find(int argc, char **argv, int *used)
{
    char two[64] = "";
    if (argc >= 2) snprintf(two, sizeof two, "%s %s", argv[0], argv[1]);
    for (int words = 2; words >= 1; words--)
        for (size_t i = 0; i < VV_COUNT(commands); i++)
            if (!strcmp(commands[i]->name, words == 2 ? two : argv[0])) {
                *used = words;
                return commands[i];
            }
    return NULL;
}

static int vsay(const struct vv_args *a, const char *fmt, va_list ap)
{
    fprintf(stderr, "varve %s: ", a->command->name);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    return VV_EXIT_FAILED;
}

int vv_cli_fail(const struct vv_args *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsay(a, fmt, ap);
    va_end(ap);
    return VV_EXIT_FAILED;
}

int vv_cli_usage(const struct vv_args *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsay(a, fmt, ap);
    va_end(ap);
    fprintf(stderr, "Try: varve %s --help\n", a->command->name);
    return VV_EXIT_USAGE;
}

/* ---- parsing ---- */

static const struct vv_opt *option(const struct vv_command *c, const char *name, size_t n,
                                   char letter)
{
    for (const struct vv_opt *o = c->opts; o && o->name; o++)
        if (letter ? o->letter == letter : strlen(o->name) == n && !strncmp(o->name, name, n))
            return o;
    if (letter ? letter == 'h' : n == 4 && !strncmp(name, "help", 4)) return &help_opt;
    return NULL;
}

/* One argument that begins with '-' (and, if need be, its value behind it). Returns arguments
 * used, 0 = bad. */
static int parse_option(struct vv_args *a, int argc, char **argv)
{
    const char *arg = argv[0], *value = NULL;
    const struct vv_opt *o;
    if (arg[1] == '-') {
        size_t n = strcspn(arg + 2, "=");
        o = option(a->command, arg + 2, n, 0);
        if (arg[2 + n] == '=') value = arg + 2 + n + 1;
    } else {
        o = option(a->command, NULL, 0, arg[1]);
        if (arg[2]) value = arg + 2;
    }
    if (!o) {
        vv_cli_usage(a, "no such option: %s", arg);
        return 0;
    }
    if (!o->arg && value) {
        vv_cli_usage(a, "--%s takes no value", o->name);
        return 0;
    }
    int used = 1;
    if (o->arg && !value) {
        if (argc < 2) {
            vv_cli_usage(a, "--%s needs a value: %s", o->name, o->arg);
            return 0;
        }
        value = argv[1];
        used = 2;
    }
    a->opts[a->count] = o;
    a->values[a->count++] = value;
    return used;
}

static int parse(struct vv_args *a, int argc, char **argv)
{
    bool options = true;
    for (int i = 0; i < argc;) {
        if (options && !strcmp(argv[i], "--")) {
            options = false;
            i++;
        } else if (options && argv[i][0] == '-' && argv[i][1]) {
            int used = parse_option(a, argc - i, argv + i);
            if (!used) return VV_EXIT_USAGE;
            i += used;
        } else {
            a->words[a->word_count++] = argv[i++];
        }
    }
    if (vv_arg_given(a, "help")) return 0;
    if ((int)a->word_count < a->command->words_min)
        return vv_cli_usage(a, "missing %s", a->command->words ? a->command->words : "operand");
    if (a->command->words_max >= 0 && (int)a->word_count > a->command->words_max)
        return vv_cli_usage(a, "unexpected: %s", a->words[a->command->words_max]);
    return 0;
}

const char *vv_arg(const struct vv_args *a, const char *name)
{
    for (size_t i = a->count; i--;)
        if (!strcmp(a->opts[i]->name, name)) return a->values[i];
    return NULL;
}

bool vv_arg_given(const struct vv_args *a, const char *name)
{
    for (size_t i = 0; i < a->count; i++)
        if (!strcmp(a->opts[i]->name, name)) return true;
    return false;
}

const char **vv_arg_all(const struct vv_args *a, const char *name, size_t *n)
{
    const char **all = calloc(a->count + 1, sizeof *all);
    *n = 0;
    for (size_t i = 0; all && i < a->count; i++)
        if (!strcmp(a->opts[i]->name, name)) all[(*n)++] = a->values[i];
    return all;
}

bool vv_arg_number(const struct vv_args *a, const char *name, int64_t initial, int64_t min,
                   int64_t max, int64_t *out)
{
    const char *text = vv_arg(a, name);
    char *end;
    *out = initial;
    if (!text) return true;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (errno || end == text || *end || v < min || v > max) {
        vv_cli_usage(a, "--%s %s: expected a whole number from %lld to %lld", name, text,
                     (long long)min, (long long)max);
        return false;
    }
    *out = v;
    return true;
}

static int run(const struct vv_command *c, int argc, char **argv)
{
    struct vv_args a = {.command = c};
    size_t n = (size_t)argc + 1;
    a.opts = calloc(n, sizeof *a.opts);
    a.values = calloc(n, sizeof *a.values);
    a.words = calloc(n, sizeof *a.words);
    int rc =
        a.opts && a.values && a.words ? parse(&a, argc, argv) : vv_cli_fail(&a, "out of memory");
    if (!rc && vv_arg_given(&a, "help"))
        say_help(stdout, c);
    else if (!rc)
        rc = c->run(&a);
    if (fflush(stdout) && !rc) rc = vv_cli_fail(&a, "cannot write the output: %s", strerror(errno));
    free(a.opts);
    free(a.values);
    free(a.words);
    return rc;
}

int vv_cli_main(int argc, char **argv)
{
    int used = 0;
    argc--;
    argv++;
    if (argc && !strcmp(argv[0], "help") && argc == 1) argv[0] = "--help";
    if (!argc || !strcmp(argv[0], "--help") || !strcmp(argv[0], "-h")) {
        say_overview(argc ? stdout : stderr);
        return argc ? VV_EXIT_DONE : VV_EXIT_USAGE;
    }
    if (!strcmp(argv[0], "--version") || !strcmp(argv[0], "version")) {
        puts("varve " VARVE_VERSION);
        return VV_EXIT_DONE;
    }
    bool help = !strcmp(argv[0], "help");
    argc -= help;
    argv += help;
    const struct vv_command *c = find(argc, argv, &used);
    if (c && help) {
        say_help(stdout, c);
        return VV_EXIT_DONE;
    }
    if (c) return run(c, argc - used, argv + used);
    bool asked = help || (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")));
    if (say_group(asked ? stdout : stderr, argv[0])) return asked ? VV_EXIT_DONE : VV_EXIT_USAGE;
    fprintf(stderr, "varve: no such command: %s\nTry: varve --help\n", argv[0]);
    return VV_EXIT_USAGE;
}
