/* uploader.c — brings the sealed extents of one partition to the bucket, strictly in order.
 *
 *   SEALED --intent journalled--> UPLOADING --put, verified--> BOTH
 *
 * The intent fixes the key (range, leader epoch, generation, nonce), so every retry, in this life or the next, asks for
 * the same object: first it looks whether the object is already there and right (a reply was lost, a crash came after
 * the put), else it puts it (only if absent, where the store can), and again over it if what is there is wrong.
 * Nothing is BOTH before the footer was read back and compared (verify_full, or a store that checks no checksum: all blocks). An object that is adopted, because its put
 * got no answer in this try, is always read back whole: nobody vouched for its bytes.
 * The segment is read twice: once before the put, block by block, for everything that must be known before it (the chain's SHA-256, the sums
 * the store is told, the sizes of compressed blocks), all of it while a block is in the processor's cache; and once as it is sent. Both
 * times each block is checked against the block table, so rot since the append is refused: what the chain and the store's sums say is
 * what was appended, and what is sent is that or refused by the store.
 * Compressed or encrypted, the stored bytes are made block by block whenever they are wanted: always the same ones within a
 * try, for the data key is the try's own; the next try has another, and what an earlier one left is read back with the key in its footer.
 * Failures back off per partition; others go on. Segments wholly below the log start are not uploaded but dropped.
 *
 * Thread: whoever holds the part's busy mark. */
#include "follow.h"
#include "objsum.h"
#include "tier_impl.h"
#include "varve/vlog.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD_DEADLINE_MS 60000
#define PUT_DEADLINE_MS(bytes) (60000 + (int64_t)((bytes) / 256)) /* slower than 256 KiB/s is a failure */
#define VERIFY_WINDOW (4u << 20)

struct upload {
    struct vv_tier_part *p;
    struct vv_tier_config config;
    struct vv_extent x;      /* holds a reference to its local segment */
    struct vv_footer footer;
    uint8_t *tail;           /* footer and trailer */
    size_t tail_n;
    char key[VV_KEY_MAX];
    struct vv_error e;
    bool mending;            /* an object that was proven once is put again */
    struct vv_error rot;     /* the source's own, which a put would paint over */
    /* the running check of the source */
    uint64_t at;             /* next byte in sequence */
    uint32_t block, crc;     /* block that holds `at`, CRC of its bytes so far */
    struct vv_summer sums;   /* of what will be sent, as the store wants them; over the footer too */
    /* blocks that are stored otherwise than they are */
    struct vv_blockcodec *codec;
    uint8_t *plain, *stored; /* room for the largest block, and for what it may take */
    uint32_t stored_block;   /* whose bytes are in `stored`; UINT32_MAX = none's */
};

/* ---- the source: local bytes, checked as they pass, then the footer ---- */

static int rotten(struct upload *u, const struct vv_block *b)
{
    return vv_error_set(&u->rot, VV_E_CORRUPT,
                        "%s-%d: local segment %" PRId64 " is damaged: block at byte %" PRIu64
                        " is not what was appended; it is not uploaded. Other offsets are served; restore the file or delete "
                        "records up to offset %" PRId64,
                        u->p->topic, (int)u->p->o.partition, u->x.base, b->at, u->x.last + 1);
}

/* Feeds n bytes that continue the sequence; every block that ends is compared. */
static int check_feed(struct upload *u, const uint8_t *p, size_t n)
{
    const struct vv_blocks *t = &u->footer.blocks;
    while (n) {
        if (u->block >= t->count) return VV_E_CORRUPT;
        const struct vv_block *b = &t->v[u->block];
        uint64_t left = b->at + b->n - u->at;
        size_t take = n < left ? n : (size_t)left;
        u->crc = vv_crc32c(u->crc, p, take);
        u->at += take;
        p += take;
        n -= take;
        if (u->at < b->at + b->n) continue;
        if (u->crc != b->crc) return rotten(u, b);
        u->block++;
        u->crc = 0;
    }
    return VV_OK;
}

/* The sequence is entered in the middle (parts): bring the check to `at` by reading its block from the start. */
static int check_seek(struct upload *u, uint64_t at)
{
    const struct vv_blocks *t = &u->footer.blocks;
    uint8_t buf[16384];
    uint32_t lo = 0, hi = t->count;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (t->v[mid].at + t->v[mid].n <= at)
            lo = mid + 1;
        else
            hi = mid;
    }
    u->block = lo;
    u->crc = 0;
    u->at = lo < t->count ? t->v[lo].at : at;
    while (u->at < at) {
        size_t n = (size_t)VV_MIN(at - u->at, (uint64_t)sizeof buf);
        int err = vv_segment_read_raw(u->x.local, buf, n, u->at);
        if (!err) err = check_feed(u, buf, n);
        if (err) return err;
    }
    return VV_OK;
}

/* Bandwidth: bytes are paid for with time; waits where a stop can wake it. The simulator sets no limit. */
static void pay(struct upload *u, size_t n)
{
    struct vv_tier *t = u->p->tier;
    if (u->config.upload_bytes_per_s <= 0) return;
    pthread_mutex_lock(&t->mu);
    int64_t now = vv_mono_us(t->env);
    t->upload_tokens_us = VV_MAX(t->upload_tokens_us, now - 100000) + (int64_t)((double)n * 1e6 / (double)u->config.upload_bytes_per_s);
    vv_tier_wait_until(t, &t->upload_tokens_us);
    atomic_fetch_add(&t->copy_throttle_us, (uint64_t)(vv_mono_us(t->env) - now));
    pthread_mutex_unlock(&t->mu);
}

/* The local block, checked, in u->plain. */
static int load_block(struct upload *u, uint32_t i)
{
    const struct vv_block *b = &u->footer.blocks.v[i];
    int err = vv_segment_read_raw(u->x.local, u->plain, b->n, b->at);
    return err || vv_crc32c(0, u->plain, b->n) == b->crc ? err : rotten(u, b);
}

/* What is in u->plain as it is to be stored, in u->stored. */
static int store_block(struct upload *u, uint32_t i, uint32_t *n, uint32_t *how)
{
    u->stored_block = UINT32_MAX;
    int err = vv_block_store(u->codec, i, u->plain, u->footer.blocks.v[i].n, u->stored, n, how);
    if (!err) u->stored_block = i;
    return err;
}

/* The pass before the put: every block once. What is only encrypted tells its size without being made. */
static int pass_blocks(struct upload *u, struct vv_summer *chain)
{
    struct vv_footer *f = &u->footer;
    bool make = f->flags & VV_OBJECT_COMPRESSED || (f->flags && u->sums.as.kinds);
    for (uint32_t i = 0; i < f->blocks.count; i++) {
        uint32_t n = f->flags ? (uint32_t)vv_block_stored_max(u->codec, f->blocks.v[i].n) : f->blocks.v[i].n, how = VV_STORED_PLAIN;
        if (vv_tier_overdue(u->p->tier)) return VV_E_SHUTDOWN;
        int err = load_block(u, i);
        if (!err && make) err = store_block(u, i, &n, &how);
        if (err) return err;
        vv_summer_feed(chain, u->plain, f->blocks.v[i].n);
        vv_summer_feed(&u->sums, make ? u->stored : u->plain, n);
        if (!f->flags) continue;
        f->stored[i] = (struct vv_stored){.at = f->stored_bytes, .n = n, .how = how};
        f->stored_bytes += n;
    }
    return VV_OK;
}

/* Makes the link's SHA-256, the sums of what will be sent before the footer, and where the stored blocks lie. A segment that rotted is left
 * to bring(): its object may be there already. The SHA-256 of a put in one request is the link's and goes on over the footer. */
static int pass(struct upload *u)
{
    struct vv_footer *f = &u->footer;
    struct vv_summer chain = {0};
    uint32_t largest = 0;
    for (uint32_t i = 0; i < f->blocks.count; i++) largest = VV_MAX(largest, f->blocks.v[i].n);
    u->plain = malloc(largest + 1);
    if (!u->plain) return VV_E_NOMEM;
    if (f->flags) {
        f->stored = calloc(f->blocks.count + 1, sizeof *f->stored);
        u->codec = vv_footer_codec(f);
        u->stored = malloc(u->codec ? vv_block_stored_max(u->codec, largest) + 1 : 1);
        if (!f->stored || !u->codec || !u->stored) return VV_E_NOMEM;
    }
    struct vv_objsumming as = vv_objstore_summing(u->p->tier->store, f->data_bytes); /* at the border between whole and parts a guess */
    bool shared = !f->flags && as.kinds && as.piece == VV_SUM_WHOLE;
    if (shared) as.kinds |= VV_SUM_SHA256;
    else vv_summer_begin(&chain, (struct vv_objsumming){VV_SUM_WHOLE, VV_SUM_SHA256});
    if (as.kinds) vv_summer_begin(&u->sums, as);
    f->stored_bytes = f->flags ? 0 : f->data_bytes;
    int err = pass_blocks(u, &chain);
    if (!err) vv_summer_sha256(shared ? &u->sums : &chain, f->links[0].sha256);
    if (!err) err = shared ? u->sums.err : chain.err;
    vv_summer_release(&chain);
    return err == VV_E_CORRUPT && !f->flags && u->rot.code ? VV_OK : err;
}

static int read_plain(struct upload *u, uint64_t at, uint8_t *p, size_t n)
{
    int err = at == u->at ? VV_OK : check_seek(u, at);
    if (!err) err = vv_segment_read_raw(u->x.local, p, n, at);
    return err ? err : check_feed(u, p, n);
}

static int read_stored(struct upload *u, uint64_t at, uint8_t *p, size_t n)
{
    const struct vv_stored *v = u->footer.stored;
    uint32_t lo = 0, hi = u->footer.blocks.count - 1;
    while (lo < hi) { /* the last one that begins at or before */
        uint32_t mid = lo + (hi - lo + 1) / 2;
        if (v[mid].at <= at) lo = mid;
        else hi = mid - 1;
    }
    while (n) {
        uint32_t got = v[lo].n, how = v[lo].how;
        int err = u->stored_block == lo ? VV_OK : load_block(u, lo);
        if (!err && u->stored_block != lo) err = store_block(u, lo, &got, &how);
        if (err) return err;
        VV_ASSERT(got == v[lo].n && how == v[lo].how);
        size_t skip = (size_t)(at - v[lo].at), take = VV_MIN(n, got - skip);
        memcpy(p, u->stored + skip, take);
        p += take;
        at += take;
        n -= take;
        lo++;
    }
    return VV_OK;
}

static int source_read(void *ctx, uint64_t at, void *dst, size_t n)
{
    struct upload *u = ctx;
    uint8_t *p = dst;
    if (vv_tier_overdue(u->p->tier)) return VV_E_SHUTDOWN;
    uint64_t data = u->footer.stored_bytes;
    if (at < data) {
        size_t take = (size_t)VV_MIN((uint64_t)n, data - at);
        int err = u->footer.flags ? read_stored(u, at, p, take) : read_plain(u, at, p, take);
        if (err) return err;
        p += take;
        at += take;
        n -= take;
        pay(u, take);
    }
    if (n) memcpy(p, u->tail + (at - data), n);
    return VV_OK;
}

/* ---- the footer ---- */

/* Leader epochs that concern [log start, last]: the last one at or below log start, and those up to last. */
static int footer_epochs(struct upload *u, struct vv_footer *f)
{
    struct vv_log *log = u->p->o.log;
    size_t n = vv_log_epochs(log, NULL, 0), kept = 0;
    f->epochs = calloc(n + 1, sizeof *f->epochs);
    if (!f->epochs) return VV_E_NOMEM;
    size_t have = vv_log_epochs(log, f->epochs, n);
    n = VV_MIN(n, have);
    for (size_t i = 0; i < n; i++) {
        if (f->epochs[i].start > f->key.last) break;
        if (i + 1 < n && f->epochs[i + 1].start <= f->log_start) continue;
        f->epochs[kept++] = f->epochs[i];
    }
    f->epoch_count = kept;
    return VV_OK;
}

/* The chain behind what lies before this segment, from the footer of the object before. Without one (a new log, an object of an older
 * version or damaged) the chain begins here; who verifies takes it on from there. */
static int chain_before(struct upload *u, uint8_t chain[VV_CHAIN_BYTES])
{
    struct vv_tier_part *p = u->p;
    struct vv_extent x = {.base = -1};
    struct vv_footer f = {0};
    struct vv_segkey k;
    uint64_t object_bytes;
    int err = vv_chain_begin(p->o.topic_id, p->o.partition, chain);
    if (err) return err;
    err = u->x.base ? vv_index_find(p->o.index, u->x.base - 1, &x) : VV_E_NOENT;
    if (!err) vv_extent_release(p->o.index, &x);
    if (err && err != VV_E_NOENT) return err;
    if (!err && x.last + 1 == u->x.base && vv_extent_is_remote(&x)) {
        vv_segkey_of(p->o.topic_id, p->o.partition, &x, &k);
        err = vv_tier_saw(p->tier, vv_footer_get(p->tier->store, &k, p->tier->clusters, (size_t)(x.object_bytes - vv_extent_footer_at(&x)), &f,
                                                 &object_bytes, &u->e));
        if (err && err != VV_E_NOENT && err != VV_E_CORRUPT) return err;
        if (!err && f.link_count) memcpy(chain, f.chain, VV_CHAIN_BYTES);
        for (size_t i = 0; !err && i < f.link_count; i++) err = vv_chain_next(chain, &f.links[i]);
        vv_footer_release(&f);
        if (err == VV_E_NOMEM) return err;
    }
    return VV_OK;
}

static int make_link(struct upload *u, struct vv_footer *f)
{
    struct vv_tier_part *p = u->p;
    int err = u->mending ? chain_before(u, f->chain) : p->chain_known ? VV_OK : chain_before(u, p->chain);
    if (err) return err;
    if (!u->mending) { /* uploads go up: from here on the last one tells the next */
        p->chain_known = true;
        memcpy(f->chain, p->chain, sizeof f->chain);
    }
    f->links = calloc(1, sizeof *f->links);
    if (!f->links) return VV_E_NOMEM;
    f->link_count = 1;
    *f->links = (struct vv_link){.base = u->x.base, .last = u->x.last, .bytes = f->data_bytes};
    return VV_OK;
}

/* How the blocks are stored. */
static int choose_form(struct upload *u)
{
    struct vv_footer *f = &u->footer;
    struct vv_tier *t = u->p->tier;
    if (u->config.compress) f->flags |= VV_OBJECT_COMPRESSED;
    if (u->config.encrypt) f->flags |= VV_OBJECT_ENCRYPTED;
    return f->flags & VV_OBJECT_ENCRYPTED ? vv_footer_make_key(f, t->store->keys, t->env, &u->e) : VV_OK;
}

static int make_footer(struct upload *u)
{
    struct vv_tier_part *p = u->p;
    struct vv_footer *f = &u->footer;
    vv_segkey_of(p->o.topic_id, p->o.partition, &u->x, &f->key);
    int err = vv_segment_blocks(u->x.local, &f->blocks);
    if (err) return vv_error_set(&u->e, err, "%s-%d: the block table of segment %" PRId64 " cannot be read: %s", p->topic,
                                 (int)p->o.partition, u->x.base, vv_err_name(err));
    f->data_bytes = f->blocks.bytes;
    f->records = f->blocks.records;
    f->writer_epoch = p->tier->claim.writer_epoch;
    f->first_ts = u->x.first_ts;
    f->max_ts = u->x.max_ts;
    f->sealed_ms = u->x.sealed_ms;
    f->log_start = vv_index_log_start(p->o.index);
    f->topic = strdup(p->topic);
    f->cluster_id = strdup(p->tier->id.cluster_id);
    if (!f->topic || !f->cluster_id) return VV_E_NOMEM;
    if (f->data_bytes != u->x.bytes)
        return vv_error_set(&u->e, VV_E_CORRUPT, "%s-%d: the block table of segment %" PRId64 " covers %" PRIu64 " of %" PRIu64
                            " bytes; it is not uploaded", p->topic, (int)p->o.partition, u->x.base, f->data_bytes, u->x.bytes);
    err = footer_epochs(u, f);
    if (!err) err = vv_log_aborted(p->o.log, u->x.base, u->x.last, &f->aborted, &f->aborted_count);
    if (!err) err = vv_segment_snapshot(u->x.local, &f->snapshot, &f->snapshot_n);
    if (!err) err = make_link(u, f);
    if (!err) err = choose_form(u);
    if (!err) err = pass(u);
    if (err && u->rot.code) u->e = u->rot;
    if (!err) err = vv_footer_encode(f, &u->tail, &u->tail_n);
    return err;
}

/* ---- verification ---- */

/* Blocks [i, to) as they came back, against the table. */
static int verify_window(struct upload *u, const struct vv_footer *f, struct vv_blockcodec *c, uint32_t i, uint32_t to,
                         const uint8_t *p)
{
    uint8_t *plain = NULL;
    int err = VV_OK;
    for (uint64_t at; !err && i < to; i++) {
        const struct vv_block *b = &f->blocks.v[i];
        size_t n;
        vv_footer_range(f, i, 1, &at, &n);
        if (c) {
            uint8_t *room = realloc(plain, b->n);
            if (room) plain = room;
            err = room ? vv_footer_load(f, c, i, p, plain) : VV_E_NOMEM;
        } else if (vv_crc32c(0, p, b->n) != b->crc) {
            err = VV_E_CORRUPT;
        }
        p += n;
    }
    free(plain);
    return err == VV_E_CORRUPT ? vv_error_set(&u->e, err, "the store returns other bytes for %s than were put", u->key) : err;
}

/* Reads all blocks back, as the object's own footer lays them out, and compares them with the table. */
static int verify_blocks(struct upload *u, const struct vv_footer *f)
{
    struct vv_blockcodec *c = f->flags ? vv_footer_codec(f) : NULL;
    int err = f->flags && !c ? VV_E_NOMEM : VV_OK;
    for (uint32_t i = 0, to; i < f->blocks.count && !err; i = to) {
        uint64_t at;
        size_t n, more;
        struct vv_slice s = {0};
        vv_footer_range(f, i, 1, &at, &n);
        for (to = i + 1; to < f->blocks.count; n = more, to++) {
            vv_footer_range(f, i, to + 1 - i, &at, &more);
            if (more > VERIFY_WINDOW) break;
        }
        err = vv_objstore_get(u->p->tier->store, u->key, VV_GET_RANGE, at, n, HEAD_DEADLINE_MS, &s, NULL, &u->e);
        if (!err) err = verify_window(u, f, c, i, to, s.p);
        if (s.buf) vv_buf_unref(s.buf);
    }
    vv_blockcodec_free(c);
    return err;
}

/* Is the object there, whole and ours? 0, E_NOENT, E_CORRUPT (there but wrong), or the store's error.
 * One suffix GET tells length and footer. A footer written by an earlier try of ours may differ in what moved since (log start):
 * identity, block table and writer epoch must not. An earlier life's is put again: once a manifest of this epoch is out, a restore
 * takes what an older epoch left beyond it for a fenced writer's (follow.h). */
static int verify_object(struct upload *u, bool whole, struct vv_objinfo *info)
{
    struct vv_slice s = {0};
    struct vv_footer f = {0}; /* the object's, if it is not the one made here */
    const struct vv_footer *there = &u->footer;
    struct vv_tier *t = u->p->tier;
    size_t need = 0;
    int err = vv_objstore_get_suffix(t->store, u->key, u->tail_n, HEAD_DEADLINE_MS, &s, info, &u->e);
    if (err) return err;
    if (info->size == u->footer.stored_bytes + u->tail_n && s.n == u->tail_n && !memcmp(s.p, u->tail, s.n)) goto out;
    there = &f;
    err = vv_footer_decode(s.p, s.n, info->size, t->store->keys, &f, &need, &u->e);
    if (err == VV_E_AGAIN) { /* the earlier footer was longer */
        vv_buf_unref(s.buf);
        s = (struct vv_slice){0};
        err = vv_objstore_get_suffix(t->store, u->key, need, HEAD_DEADLINE_MS, &s, info, &u->e);
        if (!err) err = vv_footer_decode(s.p, s.n, info->size, t->store->keys, &f, NULL, &u->e);
    }
    if (!err) err = vv_footer_check(&f, &u->footer.key, t->id.cluster_id, &u->e);
    if (!err && !vv_blocks_same(&f.blocks, &u->footer.blocks))
        err = vv_error_set(&u->e, VV_E_CORRUPT, "%s has another block table than the local segment", u->key);
    if (!err && f.writer_epoch != u->footer.writer_epoch)
        err = vv_error_set(&u->e, VV_E_CORRUPT, "%s is of writer epoch %" PRIu64 ", not ours", u->key, f.writer_epoch);
out:
    if (s.buf) vv_buf_unref(s.buf);
    /* A store that checks nothing and tells nothing of what it got: only reading it back proves anything. */
    bool mute = !(u->p->tier->store->caps & (VV_OBJ_CAP_CHECKED_PUT | VV_OBJ_CAP_ETAG_IS_MD5));
    if (!err && (whole || mute || u->config.verify_full)) err = verify_blocks(u, there);
    if (!err) u->x.stored_bytes = there->flags ? there->stored_bytes : 0;
    vv_footer_release(&f);
    return err;
}

/* ---- topic.json: once per topic, by the first upload ---- */

static bool topic_named(struct vv_tier *t, struct vv_uuid id, bool add)
{
    bool found = false;
    pthread_mutex_lock(&t->mu);
    for (size_t i = 0; i < t->topics_named_count && !found; i++) found = vv_uuid_eq(t->topics_named[i], id);
    struct vv_uuid *v = !found && add ? realloc(t->topics_named, (t->topics_named_count + 1) * sizeof *v) : NULL;
    if (v) {
        t->topics_named = v;
        v[t->topics_named_count++] = id;
    }
    pthread_mutex_unlock(&t->mu);
    return found;
}

static int name_topic(struct upload *u)
{
    struct vv_tier_part *p = u->p;
    struct vv_tier *t = p->tier;
    struct vv_index_summary s;
    vv_index_summary(p->o.index, &s);
    if (s.remote_end >= 0 || topic_named(t, p->o.topic_id, false)) return VV_OK;
    int err = vv_tier_name_topic(t, p->o.topic_id, p->topic, &u->e);
    if (!err) topic_named(t, p->o.topic_id, true);
    return err;
}

/* ---- the step ---- */

static int put_object(struct upload *u, bool *stored_wrong)
{
    *stored_wrong = false;
    struct vv_tier_part *p = u->p;
    struct vv_tier *t = p->tier;
    pthread_mutex_lock(&t->mu);
    bool overwrite = p->overwrite;
    pthread_mutex_unlock(&t->mu);
    struct vv_objput how = {.if_none_match = !overwrite && (t->store->caps & VV_OBJ_CAP_IF_NONE_MATCH), .cold = true};
    struct vv_objsrc src = {.size = u->footer.stored_bytes + u->tail_n, .read = source_read, .ctx = u};
    struct vv_objinfo told;
    vv_summer_feed(&u->sums, u->tail, u->tail_n);
    bool summed = u->sums.as.kinds && !vv_summer_end(&u->sums);
    struct vv_objsums sums = {.as = u->sums.as, .count = u->sums.count, .v = u->sums.v};
    if (summed) how.sums = &sums;
    int err = vv_objstore_put(t->store, u->key, &src, &how, PUT_DEADLINE_MS(src.size), &told, &u->e);
    if (err && u->rot.code) { /* not the store's fault */
        u->e = u->rot;
        return err;
    }
    if (!err && told.etag_differs && (t->store->caps & VV_OBJ_CAP_ETAG_IS_MD5))
        err = vv_error_set(&u->e, VV_E_CORRUPT, "the store's ETag is not the checksum of what was sent");
    *stored_wrong = err == VV_E_CORRUPT;
    return vv_tier_saw(t, err);
}

static void set_overwrite(struct vv_tier_part *p, bool on)
{
    pthread_mutex_lock(&p->tier->mu);
    p->overwrite = on;
    pthread_mutex_unlock(&p->tier->mu);
}

/* UPLOADING, footer made. Leaves a proven object or an error. */
static int bring(struct upload *u, bool look_first, struct vv_objinfo *info)
{
    struct vv_tier_part *p = u->p;
    bool wrong = false;
    int err = VV_E_NOENT;
    pthread_mutex_lock(&p->tier->mu);
    bool known_bad = p->overwrite;
    pthread_mutex_unlock(&p->tier->mu);
    if (look_first && !known_bad) {
        err = vv_tier_saw(p->tier, verify_object(u, true, info));
        if (!err) return VV_OK; /* adopted */
        if (err == VV_E_CORRUPT || err == VV_E_KEY) set_overwrite(p, true); /* an earlier try's, under a key that is gone: again */
        if (err != VV_E_NOENT && err != VV_E_CORRUPT && err != VV_E_KEY) return err;
    }
    if (u->rot.code) {
        u->e = u->rot;
        return VV_E_CORRUPT;
    }
    err = put_object(u, &wrong);
    if (err && err != VV_E_CONFLICT && !wrong) return err; /* unknown outcomes too: the next try looks first */
    /* Where a bad copy lay under this key the store's word is not enough: it may have said yes and kept the old one. */
    pthread_mutex_lock(&p->tier->mu);
    known_bad = p->overwrite;
    pthread_mutex_unlock(&p->tier->mu);
    if (!wrong) err = vv_tier_saw(p->tier, verify_object(u, known_bad || err == VV_E_CONFLICT, info));
    if (err == VV_E_CORRUPT || err == VV_E_NOENT || err == VV_E_KEY) {
        set_overwrite(p, true);
        VLOG_ERROR("%s-%d: the store did not keep %s as it was put (%s); the local copy stays, trying again", p->topic,
                   (int)p->o.partition, u->key, u->e.text);
    }
    return err;
}

static int intend(struct upload *u)
{
    struct vv_tier_part *p = u->p;
    struct vv_extent want = u->x;
    vv_random(p->tier->env, &want.nonce, sizeof want.nonce);
    if (!want.nonce) want.nonce = 1; /* 0 = there is no object */
    want.epoch = p->o.leader_epoch(p->o.ctx);
    want.generation = 0;
    want.object_bytes = want.stored_bytes = 0;
    int err = vv_index_move(p->o.index, u->x.base, VV_EXTENT_UPLOADING, &want);
    if (err) return err;
    u->x.nonce = want.nonce;
    u->x.epoch = want.epoch;
    u->x.generation = 0;
    return VV_OK;
}

static void release(struct upload *u)
{
    vv_extent_release(u->p->o.index, &u->x);
    vv_footer_release(&u->footer);
    free(u->tail);
    vv_blockcodec_free(u->codec);
    free(u->plain);
    free(u->stored);
    vv_summer_release(&u->sums);
}

static int upload(struct upload *u)
{
    struct vv_tier_part *p = u->p;
    struct vv_objinfo info = {0};
    struct vv_segkey k;
    bool resumed = u->x.state == VV_EXTENT_UPLOADING;
    if (!u->x.local)
        return vv_error_set(&u->e, VV_E_CORRUPT, "%s-%d: the upload of segment %" PRId64 " was begun but its local file is gone",
                            p->topic, (int)p->o.partition, u->x.base);
    if (atomic_load(&p->tier->fenced)) return vv_error_set(&u->e, VV_E_CONFLICT, "another writer took over the bucket");
    int err = name_topic(u);
    if (!err && !resumed) err = intend(u);
    if (!err) err = make_footer(u);
    if (err) return err;
    vv_segkey_of(p->o.topic_id, p->o.partition, &u->x, &k);
    vv_segkey_format(&k, u->key);
    err = bring(u, resumed, &info);
    if (err) return err;
    u->x.object_bytes = info.size;
    err = vv_index_move(p->o.index, u->x.base, VV_EXTENT_BOTH, &u->x);
    if (err) return err;
    if (vv_chain_next(p->chain, u->footer.links)) p->chain_known = false; /* no memory: this object's footer tells the next one */
    if (u->rot.code) p->chain_known = false; /* adopted; its SHA-256 is in its footer */
    set_overwrite(p, false);
    return VV_OK;
}

/* Below the log start before it was proven remote: local files go; an object that may exist goes through DELETING. */
static int drop_unproven(struct upload *u)
{
    struct vv_tier_part *p = u->p;
    struct vv_extent dead = {.dead_ms = vv_wall_ms(p->tier->env)};
    bool intended = u->x.state == VV_EXTENT_UPLOADING;
    int err = vv_index_move(p->o.index, u->x.base, VV_EXTENT_DELETING, &dead);
    if (!err && u->x.local) err = vv_log_drop_local(p->o.log, u->x.local);
    if (!err && !intended) err = vv_index_remove(p->o.index, u->x.base); /* with an intent the housekeeper deletes the key first */
    pthread_mutex_lock(&p->tier->mu);
    p->delete_check_us = 0;
    pthread_mutex_unlock(&p->tier->mu);
    return err == VV_E_NOENT ? VV_OK : err;
}

/* The lowest extent that is not proven remote yet; E_NOENT too when one before it is still to be sealed. */
static int pick(struct vv_tier_part *p, struct vv_extent *x)
{
    struct vv_extent open;
    int err = vv_index_find_state(p->o.index, VV_EXTENT_UPLOADING, 0, x);
    if (err != VV_E_NOENT) return err;
    err = vv_index_find_state(p->o.index, VV_EXTENT_SEALED, 0, x);
    if (err || vv_index_find_state(p->o.index, VV_EXTENT_OPEN, 0, &open)) return err;
    vv_extent_release(p->o.index, &open);
    if (open.base > x->base) return VV_OK;
    vv_extent_release(p->o.index, x);
    return VV_E_NOENT;
}

static void account(struct upload *u, int err)
{
    struct vv_tier_part *p = u->p;
    struct vv_tier *t = p->tier;
    if (err) {
        atomic_fetch_add(&t->upload_errors, 1);
    } else {
        atomic_fetch_add(&t->uploads, 1);
        atomic_fetch_add(&t->upload_bytes, u->x.object_bytes);
    }
    pthread_mutex_lock(&t->mu);
    if (err) {
        p->stats.upload_errors++;
        snprintf(p->stats.last_error, sizeof p->stats.last_error, "%.*s", (int)sizeof p->stats.last_error - 1,
                 u->e.text[0] ? u->e.text : vv_err_name(err));
    } else {
        p->stats.uploaded_segments++;
        p->stats.uploaded_bytes += u->x.object_bytes;
        p->stats.last_upload_ms = vv_wall_ms(t->env);
        p->stats.last_error[0] = 0;
    }
    pthread_mutex_unlock(&t->mu);
}

int vv_uploader_step(struct vv_tier_part *p)
{
    struct upload u = {.p = p, .stored_block = UINT32_MAX};
    vv_tier_config_get(p->tier, &u.config);
    int err = pick(p, &u.x);
    if (err) return err == VV_E_NOENT ? 0 : err;
    bool resumed = u.x.state == VV_EXTENT_UPLOADING;
    bool dropped = u.x.last < vv_index_log_start(p->o.index);
    int done = 0;
    if (dropped) {
        err = drop_unproven(&u);
        done = 1;
    } else if (resumed || (!atomic_load(&p->copy_disabled) && u.x.last < p->o.upload_limit(p->o.ctx))) {
        err = upload(&u);
        account(&u, err);
        done = 1;
    }
    if (err) {
        VLOG_WARN("%s-%d: upload of %" PRId64 "..%" PRId64 ": %s (%s)", p->topic, (int)p->o.partition, u.x.base, u.x.last,
                  u.e.text[0] ? u.e.text : "failed", vv_err_name(err));
    } else if (done) {
        vv_tier_part_dirty(p);
        if (u.x.last < vv_index_log_start(p->o.index)) vv_tier_part_log_start_moved(p); /* meanwhile: the sweep saw an upload under way and went on */
        if (p->o.on_progress) p->o.on_progress(p->o.ctx);
    }
    release(&u);
    return err ? err : done;
}

/* ---- mending ---- */

/* The footer in exactly the bytes it had: the index and every manifest tell readers where it lies. What it said of leader epochs below the
 * log start may have gone since, which leaves room; an object of an older version had no links. */
static int fit_tail(struct upload *u)
{
    struct vv_footer *f = &u->footer;
    uint64_t at = vv_extent_footer_at(&u->x);
    size_t want = (size_t)(u->x.object_bytes - at);
    int err = VV_OK;
    if ((f->flags ? f->stored_bytes : f->data_bytes) != at)
        return vv_error_set(&u->e, VV_E_UNSUPPORTED, "it cannot be put again: objects are stored in another form now (compression, encryption)");
    if (u->tail_n > want) {
        f->link_count = 0;
        free(u->tail);
        err = vv_footer_encode(f, &u->tail, &u->tail_n);
    }
    if (!err && u->tail_n < want && want - u->tail_n >= 8) {
        f->pad = want - u->tail_n;
        free(u->tail);
        err = vv_footer_encode(f, &u->tail, &u->tail_n);
    }
    if (err || u->tail_n == want) return err;
    return vv_error_set(&u->e, VV_E_UNSUPPORTED, "it cannot be put again: its footer would have %zu bytes instead of %zu", u->tail_n, want);
}

static int put_again(struct upload *u)
{
    struct vv_tier_part *p = u->p;
    struct vv_objinfo info = {0};
    struct vv_objsrc src = {.read = source_read, .ctx = u};
    struct vv_objput how = {.cold = true};
    struct vv_segkey k;
    vv_segkey_of(p->o.topic_id, p->o.partition, &u->x, &k);
    vv_segkey_format(&k, u->key);
    int err = make_footer(u);
    if (!err && u->rot.code) {
        u->e = u->rot;
        err = VV_E_CORRUPT;
    }
    if (!err) err = fit_tail(u);
    if (err) return err;
    src.size = vv_extent_footer_at(&u->x) + u->tail_n;
    err = vv_tier_saw(p->tier, vv_objstore_put(p->tier->store, u->key, &src, &how, PUT_DEADLINE_MS(src.size), NULL, &u->e));
    if (err && u->rot.code) u->e = u->rot;
    return err ? err : vv_tier_saw(p->tier, verify_object(u, true, &info));
}

int vv_uploader_mend(struct vv_tier_part *p, const struct vv_extent *x, struct vv_error *e)
{
    struct vv_tier *t = p->tier;
    struct upload u = {.p = p, .x = *x, .mending = true};
    vv_tier_config_get(t, &u.config);
    pthread_mutex_lock(&t->mu);
    while (p->busy) pthread_cond_wait(&t->idle, &t->mu);
    p->busy = true;
    pthread_mutex_unlock(&t->mu);
    int err = put_again(&u);
    u.x.local = NULL; /* the caller's */
    release(&u);
    pthread_mutex_lock(&t->mu);
    p->busy = false;
    p->kicked = true;
    pthread_cond_broadcast(&t->idle);
    pthread_mutex_unlock(&t->mu);
    if (err && e) *e = u.e;
    return err;
}
