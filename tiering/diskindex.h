/* diskindex.h — what the disk cache has: ranges of objects, each a file; which may be written, which goes next.
 *
 * A read may be covered by several ranges, cut differently from how it asks. Least recently used goes first, but who was
 * read since it was last looked at gets a second chance.
 *
 * Until the budget is full everything admitted is written. Then one must go for another, and that has to be paid for: half
 * of the bytes read from the cache, and a full cache per hour, at most a quarter of the budget saved up. So a working set
 * larger than the cache leaves most of the cache standing, and gets its hits, instead of writing the whole set round and
 * round and finding nothing.
 *
 * Pure: no I/O, no clock, no locks: the disk cache's mutex guards it. */
#ifndef VARVE_TIERING_DISKINDEX_H
#define VARVE_TIERING_DISKINDEX_H
#include "keys.h"

#define VV_DI_FILES_MAX 32768    /* about 5 MiB of this index */
#define VV_DI_BUCKETS 4096
#define VV_DI_NAME_MAX 192
#define VV_DI_SUFFIX ".vvc"

struct vv_di_range {
    struct vv_di_object *object;       /* NULL = it was removed while pinned */
    struct vv_di_range *next;          /* of the object, by at */
    struct vv_di_range *newer, *older;
    uint64_t at;
    size_t n;
    unsigned pins;                     /* somebody reads the file: no victim */
    bool used;                         /* read since it was last looked at */
};

struct vv_di_object { struct vv_segkey key; struct vv_di_range *ranges; struct vv_di_object *hash_next; };

struct vv_di { /* init {0} */
    struct vv_di_object *hash[VV_DI_BUCKETS];
    struct vv_di_range *newest, *oldest;
    size_t files;
    uint64_t bytes, bytes_max; /* as the disk counts: whole blocks of 4 KiB */
    int64_t credit, credit_us;
};

struct vv_di_piece { struct vv_di_range *range; uint64_t from; size_t n; }; /* from: in the file */

uint64_t vv_di_cost(size_t n); /* what a file of n bytes takes on the disk */
void vv_di_release(struct vv_di *di);
/* The pieces that make up [at, at + n), pinned and used; 0: not all of it is there, or in more than max pieces. */
size_t vv_di_find(struct vv_di *di, const struct vv_segkey *key, uint64_t at, size_t n, struct vv_di_piece *v, size_t max);
void vv_di_unpin(struct vv_di_range *r);
/* Cuts what is there already off both ends of [*at, *at + *n); *n 0: all of it is there. */
void vv_di_trim(const struct vv_di *di, const struct vv_segkey *key, uint64_t *at, size_t *n);
/* May n bytes be written? What must go for them is paid for now; not for what was ordered. */
bool vv_di_admit(struct vv_di *di, size_t n, bool ordered, int64_t now_us);
struct vv_di_range *vv_di_add(struct vv_di *di, const struct vv_segkey *key, uint64_t at, size_t n); /* NULL: no memory */
/* Too much for the budget with `more` bytes on top? */
bool vv_di_over(const struct vv_di *di, size_t more);
struct vv_di_range *vv_di_victim(struct vv_di *di); /* NULL: all are pinned, or there are none */
void vv_di_remove(struct vv_di *di, struct vv_di_range *r); /* freed, as soon as nobody reads it */
bool vv_di_has(const struct vv_di *di, const struct vv_segkey *key); /* anything of that object */
/* A range that overlaps, or NULL. */
struct vv_di_range *vv_di_overlap(const struct vv_di *di, const struct vv_segkey *key, uint64_t at, size_t n);

/* <topic id>.<partition>.<base>-<last>-<epoch>-<generation>-<nonce>.<at>-<n>.vvc, the last two in hexadecimal */
void vv_di_name(const struct vv_segkey *key, uint64_t at, size_t n, char out[VV_DI_NAME_MAX]);
int vv_di_parse(const char *name, struct vv_segkey *key, uint64_t *at, size_t *n); /* E_PROTO unless spelled exactly so */
#endif
