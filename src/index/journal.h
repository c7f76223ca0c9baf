/* journal.h — an append-only file of small checked records; the index's memory across restarts.
 *
 * File: 8 bytes "VVJ1" 0 0 0 0, then records: length u32 (of type + payload), CRC32C u32 (of type + payload), type u8,
 * payload. Big-endian. Every append is synced before it returns, so at most the last record can be torn: a bad
 * record with no good one after it is cut, a bad one before a good one is damage (E_CORRUPT). A journal without records is no
 * file; the file is open only while it is written, so that thousands of partitions need no descriptor for it. The first write
 * of a process makes the directory itself durable in the one above: who made it may not have.
 * After a failed write or sync the journal is offline for good (E_OFFLINE): what the disk holds is unknown.
 * One caller at a time (the index's journal mutex). */
#ifndef VARVE_INDEX_JOURNAL_H
#define VARVE_INDEX_JOURNAL_H
#include "varve/env.h"
#include "varve/error.h"
#include "varve/buf.h"

#define VV_JOURNAL_RECORD_MAX 8192

struct vv_journal {
    struct vv_env *env;
    char *path;
    uint64_t size; /* 0: there is no file yet */
    bool offline, dir_durable;
};
struct vv_journal_image { /* a new content under construction, for vv_journal_replace */
    uint8_t *p;
    size_t n, cap;
    bool failed;
};
typedef int (*vv_journal_each)(void *ctx, uint8_t type, const uint8_t *p, size_t n);
/* Reads what is there: calls each() for every good record, cuts a torn tail. */
int vv_journal_open(struct vv_env *env, const char *path, vv_journal_each each, void *ctx, struct vv_journal *out,
                    struct vv_error *e);
int vv_journal_append(struct vv_journal *j, uint8_t type, const void *p, size_t n); /* [durable] */
void vv_journal_image_add(struct vv_journal_image *im, uint8_t type, const void *p, size_t n);
int vv_journal_replace(struct vv_journal *j, struct vv_journal_image *im); /* [durable] atomic; frees im's bytes */
void vv_journal_close(struct vv_journal *j);
#endif
