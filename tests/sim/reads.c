/* reads.c — what is read, locally and from the bucket, compared with what was appended. See world.h. */
#include "world.h"

/* bytes must be the batches from the one that holds offset on, whole. Returns the offset after them. */
static int64_t compare(struct sim_part *p, int64_t offset, const uint8_t *bytes, size_t n, const char *where)
{
    size_t i = part_lower(p, offset), at = 0;
    SIM_CHECK(i < p->n && p->v[i].base <= offset,
              "partition %d, %s: bytes are served for offset %" PRId64 ", which nobody wrote", p->id, where, offset);
    for (; at < n; at += p->v[i++].n) {
        SIM_CHECK(i < p->n && n - at >= p->v[i].n,
                  "partition %d, %s: a piece of a batch, or more than was written, after %" PRId64, p->id, where,
                  p->v[i - 1].last);
        SIM_CHECK(!memcmp(bytes + at, p->v[i].p, p->v[i].n),
                  "partition %d, %s: wrong bytes in batch %" PRId64 "..%" PRId64, p->id, where, p->v[i].base,
                  p->v[i].last);
    }
    return p->v[i - 1].last + 1;
}

/* One read of a local extent; returns the next offset, or -1 when it failed with an excuse. */
static int64_t read_local(struct world *w, struct sim_part *p, const struct vv_extent *x, int64_t offset,
                          size_t max_bytes, int64_t limit)
{
    struct vv_error e = {0};
    struct vv_chain c = {0};
    struct vv_read r = {
        .offset = offset, .limit = limit, .max_bytes = max_bytes, .min_one = true, .may_block = sim_percent(w, 80)};
    int err = vv_log_read(p->log, x, &r, &c, &e);
    if (err == VV_E_AGAIN && !r.may_block) {
        r.may_block = true;
        err = vv_log_read(p->log, x, &r, &c, &e);
    }
    if (!world_ok(w, err, "read", e.text)) return -1;
    SIM_CHECK(c.bytes,
              "partition %d: nothing is read at %" PRId64 " in %s extent %" PRId64 "..%" PRId64 " below %" PRId64,
              p->id, offset, vv_extent_state_name(x->state), x->base, x->last, limit);
    uint8_t *bytes = malloc(c.bytes);
    if (!bytes) sim_fail("out of memory");
    vv_chain_copy_out(&c, bytes);
    int64_t next = compare(p, offset, bytes, c.bytes, "local read");
    SIM_CHECK(next == r.next_offset, "partition %d: the read says %" PRId64 " is next, its bytes end at %" PRId64,
              p->id, r.next_offset, next);
    SIM_CHECK(next <= limit, "partition %d: read beyond the limit", p->id);
    vv_chain_release(&c);
    free(bytes);
    return next;
}

/* What the object's own footer makes of its bytes; malloc'ed. */
static uint8_t *unpack_object(struct world *w, const struct vv_slice *s, const char *key)
{
    struct vv_footer f;
    struct vv_error e = {0};
    if (vv_footer_decode(s->p, s->n, s->n, w->checker->keys, &f, NULL, &e)) sim_fail("%s: %s", key, e.text);
    SIM_CHECK(!!(f.flags & VV_OBJECT_COMPRESSED) == w->tier_config.compress &&
              !!(f.flags & VV_OBJECT_ENCRYPTED) == w->tier_config.encrypt, "%s has flags %d", key, f.flags);
    struct vv_blockcodec *c = f.flags ? vv_footer_codec(&f) : NULL;
    uint8_t *p = malloc((size_t)f.data_bytes + 1);
    for (uint32_t i = 0; p && i < f.blocks.count; i++) {
        uint64_t at;
        size_t n;
        vv_footer_range(&f, i, 1, &at, &n);
        if (vv_footer_load(&f, c, i, s->p + at, p + f.blocks.v[i].at)) sim_fail("%s: block %u does not come back", key, i);
    }
    vv_blockcodec_free(c);
    vv_footer_release(&f);
    return p;
}

/* The data of the extent's object, as the bucket really has it. */
static void compare_object(struct world *w, struct sim_part *p, const struct vv_extent *x)
{
    struct vv_segkey k;
    char key[VV_KEY_MAX];
    struct vv_slice s = {0};
    struct vv_objinfo info = {0};
    struct vv_error e = {0};
    vv_segkey_of(w->topic_id, p->id, x, &k);
    vv_segkey_format(&k, key);
    int err = vv_objstore_get_whole(w->checker, key, 64u << 20, 0, &s, &info, &e);
    SIM_CHECK(!err, "partition %d: the object of %s extent %" PRId64 "..%" PRId64 ": %s", p->id,
              vv_extent_state_name(x->state), x->base, x->last, e.text);
    SIM_CHECK(info.size == x->object_bytes, "partition %d: %s has %" PRIu64 " bytes, the index says %" PRIu64, p->id,
              key, info.size, x->object_bytes);
    uint8_t *bytes = unpack_object(w, &s, key);
    int64_t next = compare(p, x->base, bytes, (size_t)x->bytes, "object");
    free(bytes);
    SIM_CHECK(next == x->last + 1, "partition %d: %s ends at %" PRId64, p->id, key, next - 1);
    vv_buf_unref(s.buf);
}

void part_read(struct world *w, struct sim_part *p, int64_t offset)
{
    struct vv_extent x;
    int err = vv_index_find(p->index, offset, &x);
    SIM_CHECK(!err && x.base <= offset && x.last >= offset, "partition %d: the index does not know offset %" PRId64,
              p->id, offset);
    if (x.local) {
        int64_t limit = sim_percent(w, 70) ? vv_log_end(p->log) : p->v[part_lower(p, offset)].last + 1;
        int64_t next = read_local(w, p, &x, offset, (size_t)sim_below(w, 20000), limit);
        sim_say(w, "read %d at %" PRId64 ": to %" PRId64 " of %s", p->id, offset, next, vv_extent_state_name(x.state));
    } else {
        SIM_CHECK(x.state == VV_EXTENT_REMOTE, "partition %d: %s extent %" PRId64 " has no local files", p->id,
                  vv_extent_state_name(x.state), x.base);
        compare_object(w, p, &x);
        if (p->tier) part_read_remote(w, p, offset, 1);
    }
    vv_extent_release(p->index, &x);
}

static void read_done(struct vv_tier_read *r)
{
    *(bool *)r->user = true;
}

/* A small cache makes readers wait for room: time passes, and the reader looks again. */
static void wait_for(struct world *w, const bool *done)
{
    for (int i = 0; i < 20 && !*done; i++) {
        vv_clock_sim_advance(&w->clock, 700);
        vv_reader_tick(w->tier->reader);
    }
}

/* Failures are allowed while the store has faults (and a little longer: they are remembered), wrong bytes never. */
static bool remote_ok(struct world *w, struct sim_part *p, int err, int64_t offset, const struct vv_error *e)
{
    if (!err) return true;
    sim_say(w, "  remote %d at %" PRId64 ": %s %s", p->id, offset, vv_err_name(err), e ? e->text : "");
    bool faults = w->store_bad || vv_mono_ms(&w->env) < w->store_bad_until_ms || world_dead(w);
    SIM_CHECK(faults, "partition %d: remote read at %" PRId64 ": %s %s", p->id, offset, vv_err_name(err),
              e ? e->text : "");
    return false;
}

void part_read_remote(struct world *w, struct sim_part *p, int64_t offset, int times)
{
    for (; times && offset < p->proven && !world_dead(w); times--) {
        bool done = false;
        struct vv_extent x;
        if (vv_index_find(p->index, offset, &x)) return;
        bool remote = vv_extent_is_remote(&x) && x.base <= offset;
        vv_extent_release(p->index, &x);
        if (!remote) return;
        struct vv_tier_read r = {.part = p->tier,
                                 .offset = offset,
                                 .limit = sim_percent(w, 80) ? p->end : part_batch_at(p, offset)->last + 1,
                                 .max_bytes = (size_t)sim_below(w, 20000),
                                 .min_one = true,
                                 .done = read_done,
                                 .user = &done};
        vv_tier_read_start(&r);
        bool patient = sim_percent(w, 90);
        if (patient) wait_for(w, &done);
        SIM_CHECK(done || !patient, "partition %d: a remote read at %" PRId64 " gets nowhere", p->id, offset);
        bool cancel = !done;
        if (cancel) vv_tier_read_cancel(&r);
        SIM_CHECK(done, "partition %d: a remote read at %" PRId64 " has no end", p->id, offset);
        sim_say(w, "remote read %d at %" PRId64 ": %zu bytes to %" PRId64 " %s", p->id, offset, r.bytes.bytes,
                r.next_offset, r.err ? vv_err_name(r.err) : "");
        if (cancel && r.err == VV_E_TIMEOUT) continue;
        if (!remote_ok(w, p, r.err, offset, &r.error)) return;
        SIM_CHECK(r.bytes.bytes, "partition %d: nothing is read at %" PRId64 " from the bucket", p->id, offset);
        uint8_t *bytes = malloc(r.bytes.bytes);
        if (!bytes) sim_fail("out of memory");
        vv_chain_copy_out(&r.bytes, bytes);
        int64_t next = compare(p, offset, bytes, r.bytes.bytes, "remote read");
        SIM_CHECK(next == r.next_offset && next <= r.limit,
                  "partition %d: the remote read at %" PRId64 " says %" PRId64 " is next, its bytes end at %" PRId64
                  ", the limit is %" PRId64,
                  p->id, offset, r.next_offset, next, r.limit);
        vv_chain_release(&r.bytes);
        free(bytes);
        offset = next;
    }
}

struct time_answer {
    bool done;
    int err;
    struct vv_time_hit hit;
};

static void time_done(void *ctx, int err, const struct vv_time_hit *hit)
{
    struct time_answer *a = ctx;
    a->done = true;
    a->err = err;
    if (!err) a->hit = *hit;
}

/* E_NOENT, 0, or E_AGAIN: the store is away, do not judge. */
static int find_time_remote(struct world *w, struct sim_part *p, const struct vv_extent *x, int64_t ts, int64_t from,
                            struct vv_time_hit *hit)
{
    struct time_answer a = {0};
    if (!p->tier) return VV_E_AGAIN;
    vv_tier_find_time(p->tier, x, ts, from, time_done, &a);
    wait_for(w, &a.done);
    SIM_CHECK(a.done, "partition %d: a remote time lookup has no end", p->id);
    *hit = a.hit;
    if (a.err == VV_E_NOENT) return a.err;
    return remote_ok(w, p, a.err, from, NULL) ? VV_OK : VV_E_AGAIN;
}

/* The first record at or after `from`, in extents from x on, with a time of at least ts: index and log agree with the
 * model. */
void part_find_time(struct world *w, struct sim_part *p)
{
    if (p->log_start >= p->end) return;
    int64_t from = p->log_start + (int64_t)sim_below(w, (uint64_t)(p->end - p->log_start));
    struct sim_batch *about = part_batch_at(p, from + (int64_t)sim_below(w, (uint64_t)(p->end - from)));
    int64_t ts = about->ts[sim_below(w, (uint64_t)about->records)] + (int64_t)sim_below(w, 3) - 1, want = -1;
    for (size_t i = part_lower(p, from); i < p->n && want < 0; i++)
        for (int32_t k = 0; k < p->v[i].records && want < 0; k++)
            if (p->v[i].base + k >= from && p->v[i].ts[k] >= ts) want = p->v[i].base + k;
    struct vv_extent x;
    struct vv_time_hit hit = {.offset = -1};
    int64_t at = from;
    int err = VV_E_NOENT;
    while (err == VV_E_NOENT && !vv_index_find_time(p->index, ts, at, &x)) {
        SIM_CHECK(want < 0 || x.base <= want,
                  "partition %d: time %" PRId64 " from %" PRId64 " is at %" PRId64 ", the index skips to %" PRId64,
                  p->id, ts, from, want, x.base);
        bool remote = !x.local || (x.state == VV_EXTENT_BOTH && sim_percent(w, 30));
        err = remote ? find_time_remote(w, p, &x, ts, from, &hit) : vv_log_find_time(p->log, &x, ts, from, &hit);
        at = x.last == INT64_MAX ? INT64_MAX : x.last + 1;
        vv_extent_release(p->index, &x);
        if (at == INT64_MAX) break;
    }
    if (err == VV_E_AGAIN) return;
    if (err && err != VV_E_NOENT && !world_ok(w, err, "find time", NULL)) return;
    if (err) hit.offset = -1;
    SIM_CHECK(hit.offset == want, "partition %d: time %" PRId64 " from %" PRId64 " is at %" PRId64 ", found %" PRId64,
              p->id, ts, from, want, hit.offset);
}

/* ---- everything ---- */

static void check_sealed(struct sim_part *p, const struct vv_extent *x)
{
    uint64_t bytes = 0;
    int64_t max_ts = INT64_MIN;
    for (size_t i = part_lower(p, x->base); i < p->n && p->v[i].base <= x->last; i++) {
        bytes += p->v[i].n;
        max_ts = VV_MAX(max_ts, p->v[i].max_ts);
    }
    SIM_CHECK(bytes == x->bytes && max_ts == x->max_ts,
              "partition %d: %s extent %" PRId64 "..%" PRId64 ": %" PRIu64 " bytes up to time %" PRId64
              " in the index, %" PRIu64 " and %" PRId64 " were written",
              p->id, vv_extent_state_name(x->state), x->base, x->last, x->bytes, x->max_ts, bytes, max_ts);
}

static void check_extent(struct world *w, struct sim_part *p, const struct vv_extent *x, bool deep)
{
    int64_t end = x->last == INT64_MAX ? p->end : x->last + 1;
    if (x->state != VV_EXTENT_OPEN) check_sealed(p, x);
    if (end <= p->log_start) return; /* its bytes may go at any time */
    if (vv_extent_is_remote(x) && (deep || sim_percent(w, 10))) compare_object(w, p, x);
    if (x->state == VV_EXTENT_REMOTE) {
        SIM_CHECK(!x->local, "partition %d: REMOTE extent %" PRId64 " holds local files", p->id, x->base);
        return;
    }
    SIM_CHECK(x->local, "partition %d: %s extent %" PRId64 "..%" PRId64 " has no local files", p->id,
              vv_extent_state_name(x->state), x->base, x->last);
    for (int64_t at = x->base; at >= 0 && at < end && (deep || at == x->base);)
        at = read_local(w, p, x, at, 1 << 20, end);
}

void part_check(struct world *w, struct sim_part *p, bool deep)
{
    struct vv_index_summary s;
    struct vv_extent x;
    int64_t at = 0, last = -1;
    bool open = false;
    vv_index_summary(p->index, &s);
    SIM_CHECK(s.log_start == p->log_start || s.log_start == p->log_start_asked,
              "partition %d: log start %" PRId64 ", not %" PRId64, p->id, s.log_start, p->log_start);
    p->proven = VV_MAX(p->proven, s.remote_end);
    while (at != INT64_MAX && !vv_index_next(p->index, at, &x)) {
        bool live = x.state <= VV_EXTENT_REMOTE;
        SIM_CHECK(!open || x.state == VV_EXTENT_OPEN, "partition %d: %s extent %" PRId64 " after an open one", p->id,
                  vv_extent_state_name(x.state), x.base);
        SIM_CHECK(live || x.last < s.log_start,
                  "partition %d: %s extent %" PRId64 "..%" PRId64 " at or above log start %" PRId64, p->id,
                  vv_extent_state_name(x.state), x.base, x.last, s.log_start);
        SIM_CHECK(!live || (last < 0 ? x.base <= VV_MAX(s.log_start, 0) : x.base == last + 1 || x.base <= s.log_start),
                  "partition %d: extent %" PRId64 " follows %" PRId64 ", log start %" PRId64, p->id, x.base, last,
                  s.log_start);
        open = x.state == VV_EXTENT_OPEN;
        if (live) {
            check_extent(w, p, &x, deep);
            last = x.last;
        }
        at = x.last == INT64_MAX ? INT64_MAX : x.last + 1;
        vv_extent_release(p->index, &x);
    }
    SIM_CHECK(open && at == INT64_MAX, "partition %d: no open extent at the end", p->id);
}
