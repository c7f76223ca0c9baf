/* reader_order.c — ordering for the disk cache: whoever prewarms wants what his reads fetch to stay, also what is fetched ahead
 * of them. So it is not the fetches that are marked but the objects, as far ahead as read-ahead may go; the disk cache then takes
 * what it is offered of them. Any thread, no locks. */
#include "diskcache.h"
#include "reader.h"

#define EXTENTS 16
#define BYTES (512u << 20)

void vv_reader_order(struct vv_task *k)
{
    struct vv_tier_part *p = k->part;
    int64_t at = k->offset;
    uint64_t bytes = 0;
    for (int i = 0; i < EXTENTS && bytes < BYTES; i++) {
        struct vv_extent x;
        struct vv_segkey key;
        if (vv_index_find_now(p->o.index, at, &x)) return;
        vv_extent_release(p->o.index, &x);
        x.local = NULL;
        if (vv_extent_is_remote(&x)) {
            vv_segkey_of(p->o.topic_id, p->o.partition, &x, &key);
            vv_diskcache_order(p->tier->disk, &key, (size_t)x.object_bytes);
            bytes += x.object_bytes;
        }
        if (x.last == INT64_MAX) return;
        at = x.last + 1;
    }
}

int vv_tier_part_order_ready(struct vv_tier_part *p)
{
    return vv_diskcache_ready(p->tier->disk);
}
