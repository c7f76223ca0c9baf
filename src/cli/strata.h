/* strata.h — the picture: a partition's layers as a geologist draws them, newest on top.
 *
 * One column per partition, one row per span of time. A cell is filled in proportion to what lies
 * where: only in the bucket (cold), in both, only on the local disk (hot). Plain text; colour
 * when asked. Pure but for the FILE. */
#ifndef VARVE_CLI_STRATA_H
#define VARVE_CLI_STRATA_H
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define VV_STRATA_ROWS_MAX 64
struct vv_stratum { /* one partition */
    int32_t partition;
    /* offsets: cold [start, local_start), both, hot [tiered_end, end) */
    int64_t start, local_start, tiered_end, end;
    /* at[r] .. at[r + 1]: offsets of row r, oldest row first */
    int64_t at[VV_STRATA_ROWS_MAX + 1];
    int64_t local_bytes, remote_bytes;
};
/* times[r]: where row r begins (Unix ms), rows + 1 of them, oldest first. width: columns of the
 * terminal. */
void vv_strata_draw(FILE *to, const struct vv_stratum *parts, size_t n, const int64_t *times,
                    int rows, int width, bool colour);
/* Columns of the terminal behind fd; $COLUMNS, else 80. */
int vv_terminal_width(int fd);
#endif
