/* diskcache.h — the second level of the cache: files on the local disk with ranges of objects that were fetched again.
 *
 * It sits between the reader and the store: on a GET the reader asks here first (find, read), and offers what came from
 * the store and passed its checksums. The bytes are the object's, as they lie in the bucket; whoever reads them back
 * checks them as if they came from the bucket (reader_check.c) and says vv_diskcache_bad if they are not: the file goes,
 * the store is asked. So no file is ever synced, and torn, truncated, rotten and foreign files do no harm.
 *
 * Admission (ghost.h): a range is written only when the store had to send it a second time within what is remembered, for
 * then it is read again and memory could not hold it. A replay that reads everything once writes nothing. Small ranges
 * (footers) are written at once where data of their object is here, which is of little use without. What may replace what:
 * diskindex.h.
 *
 * Bounds: bytes_max and VV_DI_FILES_MAX files; VV_DISKCACHE_QUEUE writes wait (their buffers are in no other budget), further offers are dropped. Below `floor`
 * free bytes of the file system nothing is written and files go until there is room: looked at once a second and before
 * each write. A disk that is short or fails is not written to for ten seconds.
 *
 * Restart: the names tell object and range, the length must fit, oldest files first in the order of eviction. One broker a
 * directory (a lock); files with other names are left alone.
 *
 * Ordered (vv_diskcache_order, `varve replay --prewarm`): what is fetched of an object within the next minute is written without having been
 * fetched before, whatever it displaces. Who orders looks at vv_diskcache_ready before each step, so that writing keeps up.
 *
 * Threads: calls come from any thread; done of a read runs on one of the cache's own threads. Reads go before writes, one
 * write at a time. Before vv_diskcache_start (tests, the simulator) all work is done inside the calls. `mu` is a leaf,
 * never held across the disk or a callback. */
#ifndef VARVE_TIERING_DISKCACHE_H
#define VARVE_TIERING_DISKCACHE_H
#include "keys.h"
#include "varve/objstore.h"

#define VV_DISKCACHE_QUEUE 4                /* writes that may wait; one always may … */
#define VV_DISKCACHE_BYTES (32u << 20)      /* … and their bytes */
#define VV_DISKCACHE_ORDERED 64             /* with those that were ordered: what a reader has in flight when it is told to wait */
#define VV_DISKCACHE_ORDERED_BYTES (128u << 20)
#define VV_DISKCACHE_AUTO_MAX (16ull << 30)

struct vv_diskcache;
struct vv_diskread; /* a read that will be answered from files */

struct vv_diskcache_stats { uint64_t hits, hit_bytes, misses, writes, write_bytes, evictions, bad, errors, bytes, files; };

/* dir is made on first use. bytes_max < 0: a tenth of the file system, at most VV_DISKCACHE_AUTO_MAX; 0: off, files go.
 * reserve: vv_space_reserve's; the floor is 9/4 of it, so that files go before producers are slowed down. NULL when out
 * of memory. */
struct vv_diskcache *vv_diskcache_new(struct vv_env *env, const char *dir, int64_t bytes_max, int64_t reserve);
int vv_diskcache_start(struct vv_diskcache *dc);
/* Ends its threads; reads that wait end with E_SHUTDOWN, from here on nothing is found. NULL is fine, here and below. */
void vv_diskcache_stop(struct vv_diskcache *dc);
void vv_diskcache_free(struct vv_diskcache *dc);
void vv_diskcache_limit(struct vv_diskcache *dc, int64_t bytes_max);
void vv_diskcache_tick(struct vv_diskcache *dc); /* now and then */
void vv_diskcache_stats(struct vv_diskcache *dc, struct vv_diskcache_stats *out);

/* Is all of it here? Then vv_diskcache_read must follow: get->done is called as a store would (a file that cannot be read:
 * E_CORRUPT). NULL: ask the store. */
struct vv_diskread *vv_diskcache_find(struct vv_diskcache *dc, const struct vv_segkey *key, struct vv_objget *get);
void vv_diskcache_read(struct vv_diskcache *dc, struct vv_diskread *r);
/* What was read there is not what it should be: the files go. [disk] */
void vv_diskcache_bad(struct vv_diskcache *dc, const struct vv_segkey *key, uint64_t at, size_t n);
/* VV_OK; E_AGAIN: many writes wait, or the disk is short: later; E_UNSUPPORTED: there is no cache. */
int vv_diskcache_ready(struct vv_diskcache *dc);
void vv_diskcache_order(struct vv_diskcache *dc, const struct vv_segkey *key, size_t object_bytes);
/* Verified bytes that came from the store; the cache takes its own references. */
void vv_diskcache_offer(struct vv_diskcache *dc, const struct vv_segkey *key, uint64_t at, const struct vv_chain *bytes);
#endif
