/* strata.c — see strata.h. */
#include "strata.h"
#include "table.h"

#include "varve/bytes.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#define LABEL 12 /* "2026-03-01  " */

enum layer { COLD, BOTH, HOT, NONE };
static const char *const glyph[] = {"░", "▒", "█", " "};
static const char *const paint[] = {"\033[38;5;33m", "\033[38;5;179m", "\033[38;5;203m", ""};

int vv_terminal_width(int fd)
{
    struct winsize w;
    const char *columns = getenv("COLUMNS");
    if (!ioctl(fd, TIOCGWINSZ, &w) && w.ws_col > 0) return w.ws_col;
    int n = columns ? atoi(columns) : 0;
    return n > 20 && n < 1000 ? n : 80;
}

static void put(FILE *to, enum layer l, int n, bool colour)
{
    if (n <= 0) return;
    if (colour) fputs(paint[l], to);
    while (n--)
        fputs(glyph[l], to);
    if (colour && *paint[l]) fputs("\033[0m", to);
}

static int64_t overlap(int64_t a, int64_t b, int64_t from, int64_t to)
{
    int64_t lo = VV_MAX(a, from), hi = VV_MIN(b, to);
    return hi > lo ? hi - lo : 0;
}

/* The cell of offsets [a, b), w wide: each layer that is there gets its share, at least one
 * column. */
static void cell(FILE *to, const struct vv_stratum *s, int64_t a, int64_t b, int w, bool colour)
{
    int64_t part[3], all = b - a;
    int cols[3] = {0}, used = 0, biggest = 0;
    if (all <= 0) {
        put(to, NONE, w, false);
        return;
    }
    part[COLD] = overlap(a, b, s->start, s->local_start);
    part[BOTH] = overlap(a, b, s->local_start, s->tiered_end);
    part[HOT] = overlap(a, b, VV_MAX(s->tiered_end, s->local_start), s->end);
    for (int l = 0; l < 3; l++) {
        cols[l] = (int)(part[l] * w / all);
        if (part[l] && !cols[l]) cols[l] = 1;
        used += cols[l];
        if (part[l] > part[biggest]) biggest = l;
    }
    cols[biggest] += w - used;
    for (int l = 0; l < 3; l++)
        put(to, (enum layer)l, cols[l], colour);
}

static void rule(FILE *to, const char *left, const char *mid, const char *right, size_t n, int w)
{
    fprintf(to, "%*s%s", LABEL, "", left);
    for (size_t i = 0; i < n; i++) {
        for (int k = 0; k < w; k++)
            fputs("─", to);
        fputs(i + 1 < n ? mid : right, to);
    }
    fputc('\n', to);
}

static void legend(FILE *to, bool colour)
{
    static const char *const says[] = {" only in the bucket   ", " bucket and local disk   ",
                                       " only local"};
    fprintf(to, "%*s", LABEL, "");
    for (int l = 0; l < 3; l++) {
        put(to, (enum layer)l, 2, colour);
        fputs(says[l], to);
    }
    fputc('\n', to);
}

static void totals(FILE *to, const char *what, const struct vv_stratum *parts, size_t n, int w,
                   bool remote)
{
    char text[32];
    fprintf(to, "%*s", LABEL, what);
    for (size_t i = 0; i < n; i++) {
        vv_human_bytes((double)(remote ? parts[i].remote_bytes : parts[i].local_bytes), text);
        fprintf(to, " %*s", w, text);
    }
    fputc('\n', to);
}

void vv_strata_draw(FILE *to, const struct vv_stratum *parts, size_t n, const int64_t *times,
                    int rows, int width, bool colour)
{
    int room = (width - LABEL - 2) / (int)VV_MAX(n, (size_t)1) - 1;
    int w = VV_MAX(VV_MIN(room, 16), 3);
    while (n > 1 && LABEL + 2 + (int)n * (w + 1) > width)
        n--; /* the first ones that fit */
    fprintf(to, "%*s", LABEL, "");
    for (size_t i = 0; i < n; i++) {
        char name[16];
        snprintf(name, sizeof name, "p%d", (int)parts[i].partition);
        fprintf(to, " %-*s", w, name);
    }
    fputc('\n', to);
    rule(to, "┌", "┬", "┐", n, w);
    for (int r = rows - 1; r >= 0; r--) {
        char date[24];
        time_t t = (time_t)(times[r] / 1000);
        struct tm tm;
        gmtime_r(&t, &tm);
        strftime(date, sizeof date, "%Y-%m-%d", &tm);
        fprintf(to, "%10s  │", date);
        for (size_t i = 0; i < n; i++) {
            cell(to, &parts[i], parts[i].at[r], parts[i].at[r + 1], w, colour);
            fputs("│", to);
        }
        fputc('\n', to);
    }
    rule(to, "└", "┴", "┘", n, w);
    totals(to, "local ", parts, n, w, false);
    totals(to, "bucket ", parts, n, w, true);
    legend(to, colour);
}
