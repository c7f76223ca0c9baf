/* diskindex.c — see diskindex.h. */
#include "diskindex.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define DISK_BLOCK 4096u

uint64_t vv_di_cost(size_t n)
{
    return ((uint64_t)n + DISK_BLOCK - 1) / DISK_BLOCK * DISK_BLOCK;
}

/* ---- objects and order ---- */

static size_t bucket(const struct vv_segkey *k)
{
    uint64_t h = (k->nonce ^ (uint64_t)k->base) * 0x9e3779b97f4a7c15u;
    return h >> 40 & (VV_DI_BUCKETS - 1);
}

static struct vv_di_object *find_object(const struct vv_di *di, const struct vv_segkey *key)
{
    struct vv_di_object *o = di->hash[bucket(key)];
    while (o && !vv_segkey_eq(&o->key, key)) o = o->hash_next;
    return o;
}

static void leave_order(struct vv_di *di, struct vv_di_range *r)
{
    *(r->newer ? &r->newer->older : &di->newest) = r->older;
    *(r->older ? &r->older->newer : &di->oldest) = r->newer;
    r->newer = r->older = NULL;
}

static void to_newest(struct vv_di *di, struct vv_di_range *r)
{
    r->older = di->newest;
    *(di->newest ? &di->newest->newer : &di->oldest) = r;
    di->newest = r;
}

static void forget_object(struct vv_di *di, struct vv_di_object *o)
{
    struct vv_di_object **at = &di->hash[bucket(&o->key)];
    while (*at != o) at = &(*at)->hash_next;
    *at = o->hash_next;
    free(o);
}

/* ---- reading ---- */

size_t vv_di_find(struct vv_di *di, const struct vv_segkey *key, uint64_t at, size_t n, struct vv_di_piece *v, size_t max)
{
    struct vv_di_object *o = find_object(di, key);
    uint64_t end = at + n;
    size_t count = 0;
    for (struct vv_di_range *r = o ? o->ranges : NULL; r && at < end && count < max; r = r->next) {
        if (r->at + r->n <= at) continue;
        if (r->at > at) return 0;
        uint64_t to = VV_MIN(end, r->at + r->n);
        v[count++] = (struct vv_di_piece){.range = r, .from = at - r->at, .n = (size_t)(to - at)};
        at = to;
    }
    if (at < end || !n) return 0;
    for (size_t i = 0; i < count; i++) {
        v[i].range->pins++;
        v[i].range->used = true;
        leave_order(di, v[i].range);
        to_newest(di, v[i].range);
    }
    di->credit = VV_MIN(di->credit + (int64_t)n / 2, (int64_t)(di->bytes_max / 4));
    return count;
}

bool vv_di_has(const struct vv_di *di, const struct vv_segkey *key)
{
    return find_object(di, key) != NULL;
}

void vv_di_unpin(struct vv_di_range *r)
{
    if (!--r->pins && !r->object) free(r);
}

struct vv_di_range *vv_di_overlap(const struct vv_di *di, const struct vv_segkey *key, uint64_t at, size_t n)
{
    struct vv_di_object *o = find_object(di, key);
    for (struct vv_di_range *r = o ? o->ranges : NULL; r && r->at < at + n; r = r->next)
        if (r->at + r->n > at) return r;
    return NULL;
}

void vv_di_trim(const struct vv_di *di, const struct vv_segkey *key, uint64_t *at, size_t *n)
{
    struct vv_di_object *o = find_object(di, key);
    uint64_t from = *at, to = *at + *n, run = from, run_end = from; /* run: what is there without a gap */
    for (struct vv_di_range *r = o ? o->ranges : NULL; r && r->at < to; r = r->next) {
        uint64_t end = r->at + r->n;
        if (r->at <= from) from = VV_MAX(from, end);
        if (r->at > run_end) run = r->at;
        run_end = VV_MAX(run_end, end);
    }
    if (run_end >= to && run > from) to = run;
    *at = from;
    *n = from < to ? (size_t)(to - from) : 0;
}

/* ---- writing ---- */

bool vv_di_over(const struct vv_di *di, size_t more)
{
    return di->files && (di->bytes + vv_di_cost(more) > di->bytes_max || di->files + (more > 0) > VV_DI_FILES_MAX);
}

bool vv_di_admit(struct vv_di *di, size_t n, bool ordered, int64_t now_us)
{
    double per_us = (double)di->bytes_max / 3600e6;
    if (vv_di_cost(n) > di->bytes_max) return false;
    if (ordered || !vv_di_over(di, n)) return true;
    double grown = di->credit_us ? (double)(now_us - di->credit_us) * per_us : 0;
    if (!di->credit_us || grown >= 1) {
        di->credit = (int64_t)VV_MIN((double)di->credit + grown, (double)(di->bytes_max / 4));
        di->credit_us = now_us;
    }
    if (di->credit < (int64_t)n && di->credit < (int64_t)(di->bytes_max / 4)) return false;
    di->credit -= (int64_t)n;
    return true;
}

struct vv_di_range *vv_di_add(struct vv_di *di, const struct vv_segkey *key, uint64_t at, size_t n)
{
    struct vv_di_object *o = find_object(di, key), *made = NULL;
    struct vv_di_range *r = calloc(1, sizeof *r);
    if (r && !o) o = made = calloc(1, sizeof *o);
    if (!r || !o) {
        free(r);
        return NULL;
    }
    if (made) {
        o->key = *key;
        o->hash_next = di->hash[bucket(key)];
        di->hash[bucket(key)] = o;
    }
    struct vv_di_range **where = &o->ranges;
    while (*where && (*where)->at < at) where = &(*where)->next;
    *r = (struct vv_di_range){.object = o, .next = *where, .at = at, .n = n};
    *where = r;
    to_newest(di, r);
    di->files++;
    di->bytes += vv_di_cost(n);
    return r;
}

struct vv_di_range *vv_di_victim(struct vv_di *di)
{
    struct vv_di_range *r;
    size_t looks = 2 * di->files; /* by then every chance was used */
    while ((r = di->oldest) != NULL && looks--) {
        if (!r->pins && !r->used) return r;
        r->used = false;
        leave_order(di, r);
        to_newest(di, r);
    }
    return NULL;
}

void vv_di_remove(struct vv_di *di, struct vv_di_range *r)
{
    struct vv_di_object *o = r->object;
    struct vv_di_range **where = &o->ranges;
    while (*where != r) where = &(*where)->next;
    *where = r->next;
    leave_order(di, r);
    di->files--;
    di->bytes -= vv_di_cost(r->n);
    if (!o->ranges) forget_object(di, o);
    r->object = NULL;
    if (!r->pins) free(r);
}

void vv_di_release(struct vv_di *di)
{
    while (di->newest) vv_di_remove(di, di->newest);
}

/* ---- names ---- */

void vv_di_name(const struct vv_segkey *key, uint64_t at, size_t n, char out[VV_DI_NAME_MAX])
{
    char object[VV_KEY_MAX];
    vv_segkey_format(key, object);
    char *p = object + strlen(VV_KEY_TOPICS);
    object[strlen(object) - strlen(".seg")] = 0;
    for (char *c = p; *c; c++)
        if (*c == '/') *c = '.';
    snprintf(out, VV_DI_NAME_MAX, "%.160s.%" PRIx64 "-%zx" VV_DI_SUFFIX, p, at, n);
}

int vv_di_parse(const char *name, struct vv_segkey *key, uint64_t *at, size_t *n)
{
    char object[VV_KEY_MAX], again[VV_DI_NAME_MAX];
    size_t length = strlen(name);
    const char *partition = strchr(name, '.'), *rest = partition ? strchr(partition + 1, '.') : NULL;
    const char *range = rest ? strchr(rest + 1, '.') : NULL;
    unsigned long long from, bytes;
    if (length >= VV_DI_NAME_MAX || !range || sscanf(range, ".%llx-%llx", &from, &bytes) != 2) return VV_E_PROTO;
    snprintf(object, sizeof object, VV_KEY_TOPICS "%.*s/%.*s/%.*s.seg", (int)(partition - name), name,
             (int)(rest - partition - 1), partition + 1, (int)(range - rest - 1), rest + 1);
    if (vv_segkey_parse(object, key)) return VV_E_PROTO;
    *at = from;
    *n = (size_t)bytes;
    vv_di_name(key, *at, *n, again);
    return strcmp(again, name) || !bytes || bytes > SIZE_MAX / 2 || from > INT64_MAX ? VV_E_PROTO : VV_OK;
}
