/* housekeeper.h — what must be looked at now and then: disk room, the clock, quiet segments, retention, retries. */
#ifndef VARVE_HOUSEKEEPER_H
#define VARVE_HOUSEKEEPER_H
#include "broker.h"

/* A timer on control, each second. Start after everything else is open; stop on the main thread before control stops.
 */
int vv_housekeeper_start(struct vv_broker *b, struct vv_housekeeper **out, struct vv_error *e);
void vv_housekeeper_stop(struct vv_housekeeper *h); /* NULL is fine */

/* Bytes that must stay free: tier.disk.reserve, or for -1 max(1 GiB, 5 %), but at most an eighth of the disk. */
uint64_t vv_disk_reserve(const struct vv_broker_config *c, uint64_t total);
enum vv_disk_state vv_disk_state_of(const struct vv_broker_config *c, const struct vv_space *s);

/* Wall time against monotonic time. Pure: told both clocks, says whether wall time may drive deletions. */
struct vv_clock_watch {
    int64_t gap_ms;        /* wall - mono that is believed */
    int64_t not_before_ms; /* wall time that was seen before the last start */
    bool trusted;
};
#define VV_CLOCK_JUMP_MS 3600000LL
#define VV_CLOCK_AWAY_MS (30 * 86400000LL) /* a broker that was off for longer asks */
/* journalled: the last wall time before this start; 0 = none. */
void vv_clock_watch_begin(struct vv_clock_watch *w, int64_t wall_ms, int64_t mono_ms, int64_t journalled_ms);
bool vv_clock_watch_look(struct vv_clock_watch *w, int64_t wall_ms, int64_t mono_ms);
void vv_clock_watch_confirm(struct vv_clock_watch *w, int64_t wall_ms, int64_t mono_ms);
#endif
