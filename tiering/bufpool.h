/* bufpool.h — buffers for what is read from the bucket, with memory that was touched before.
 *
 * Fresh pages cost a read more than its checksum: the kernel faults once per 4 KiB and clears each page, and malloc
 * gives buffers of this size back at once. So the last few that were given back are kept for the next GETs: when the
 * cache is full, each eviction frees just what the next GET needs. Small buffers are vv_buf_new's.
 *
 * A buffer may outlive the pool (a socket still sends it): it holds a reference. Any thread. */
#ifndef VARVE_TIERING_BUFPOOL_H
#define VARVE_TIERING_BUFPOOL_H
#include "varve/buf.h"

#define VV_BUFPOOL_FROM (64u << 10) /* bytes: smaller ones are not pooled */

struct vv_bufpool;
/* Spares hold spare_bytes at most, and what was promised. NULL when out of memory. */
struct vv_bufpool *vv_bufpool_new(size_t spare_bytes);
/* So many bytes will be asked for soon, and are in somebody's budget already; taken back with each buffer got for it, or
 * when it is not. */
void vv_bufpool_promise(struct vv_bufpool *p, size_t n);
void vv_bufpool_unpromise(struct vv_bufpool *p, size_t n);
void vv_bufpool_free(struct vv_bufpool *p); /* NULL is fine */
/* cap == n, contents undefined; NULL when out of memory. */
struct vv_buf *vv_bufpool_get(struct vv_bufpool *p, size_t n);
size_t vv_bufpool_trim(struct vv_bufpool *p); /* nothing is read any more: the spares go; their bytes */
#endif
