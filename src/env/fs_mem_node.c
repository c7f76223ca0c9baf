/* fs_mem_node.c — what is written, what is durable, and what a power cut makes of the difference. Contract: env_sim.h.
 *
 * A file is its live bytes, the bytes on the platter, and the writes between them in order. A directory is its entries,
 * the durable entries, and the changes between them in order. A sync applies them all; a crash applies those that the
 * seed keeps, then forgets the live side. One owner: fs_mem's mutex. Out of memory ends the test. */
#include "fs_mem_node.h"
#include "varve/error.h"
#include "varve/vlog.h"

#include <stdlib.h>
#include <string.h>

#define SECTOR 512
#define FILE_MAX ((uint64_t)1 << 32) /* a test that writes more has lost its way */

static void *more(void *p, size_t n, size_t *cap, size_t each)
{
    if (n < *cap) return p;
    *cap = *cap ? *cap * 2 : 8;
    p = realloc(p, *cap * each);
    VV_ASSERT(p);
    return p;
}

static char *copy_name(const char *s)
{
    if (!s) return NULL;
    char *p = strdup(s);
    VV_ASSERT(p);
    return p;
}

/* ---- bytes ---- */

static void bytes_resize(struct mem_bytes *b, size_t n)
{
    if (n > b->cap) {
        size_t cap = b->cap ? b->cap : 256;
        while (cap < n) cap *= 2;
        b->p = realloc(b->p, cap);
        VV_ASSERT(b->p);
        b->cap = cap;
    }
    if (n > b->n) memset(b->p + b->n, 0, n - b->n);
    b->n = n;
}

static void bytes_put(struct mem_bytes *b, const uint8_t *src, size_t n, uint64_t at)
{
    if (!n) return;
    if (at + n > b->n) bytes_resize(b, (size_t)at + n);
    memcpy(b->p + at, src, n);
}

/* ---- nodes ---- */

struct mem_node *mem_node_new(struct mem_disk *d, bool is_dir)
{
    struct mem_node *n = calloc(1, sizeof *n);
    VV_ASSERT(n);
    n->is_dir = is_dir;
    n->refs = 1;
    n->prev = d->last;
    if (d->last) d->last->next = n;
    else d->first = n;
    d->last = n;
    return n;
}

void mem_node_ref(struct mem_node *n)
{
    n->refs++;
}

static void change_release(struct mem_disk *d, struct mem_change *c)
{
    free(c->unset);
    free(c->set);
    if (c->node) mem_node_unref(d, c->node);
    if (c->twin) mem_node_unref(d, c->twin);
}

static void entries_clear(struct mem_disk *d, struct mem_entries *e)
{
    while (e->n) {
        struct mem_entry x = e->v[--e->n];
        free(x.name);
        mem_node_unref(d, x.node);
    }
}

static void writes_clear(struct mem_node *n)
{
    for (size_t i = 0; i < n->write_n; i++) free(n->writes[i].p);
    n->write_n = 0;
}

void mem_node_unref(struct mem_disk *d, struct mem_node *n)
{
    if (--n->refs) return;
    n->refs = 1; /* for what hangs below and points back */
    entries_clear(d, &n->now);
    entries_clear(d, &n->kept);
    for (size_t i = 0; i < n->change_n; i++) change_release(d, &n->changes[i]);
    writes_clear(n);
    d->used -= n->live.n;
    free(n->now.v);
    free(n->kept.v);
    free(n->changes);
    free(n->writes);
    free(n->live.p);
    free(n->disk.p);
    if (n->prev) n->prev->next = n->next;
    else d->first = n->next;
    if (n->next) n->next->prev = n->prev;
    else d->last = n->prev;
    free(n);
}

void mem_disk_free(struct mem_disk *d)
{
    for (struct mem_node *n = d->first; n; n = n->next) {
        n->refs++; /* nothing vanishes under the loop */
        mem_dir_sync(d, n);
    }
    for (struct mem_node *n = d->first; n; n = n->next) {
        entries_clear(d, &n->now);
        entries_clear(d, &n->kept);
    }
    mem_node_unref(d, d->root);
    struct mem_node *next;
    for (struct mem_node *n = d->first; n; n = next) {
        next = n->next;
        mem_node_unref(d, n);
    }
    VV_ASSERT(!d->first);
}

/* ---- directories ---- */

static struct mem_entry *entry_find(const struct mem_entries *e, const char *name, size_t name_n)
{
    for (size_t i = 0; i < e->n; i++)
        if (!strncmp(e->v[i].name, name, name_n) && !e->v[i].name[name_n]) return &e->v[i];
    return NULL;
}

struct mem_node *mem_dir_find(const struct mem_node *dir, const char *name, size_t name_n)
{
    struct mem_entry *e = entry_find(&dir->now, name, name_n);
    return e ? e->node : NULL;
}

static void entries_apply(struct mem_disk *d, struct mem_entries *e, const char *unset, const char *set,
                          struct mem_node *node)
{
    struct mem_entry *x;
    if (set) {
        mem_node_ref(node);
        x = entry_find(e, set, strlen(set));
        if (x) {
            struct mem_node *old = x->node;
            x->node = node;
            mem_node_unref(d, old);
        } else {
            e->v = more(e->v, e->n, &e->cap, sizeof *e->v);
            e->v[e->n++] = (struct mem_entry){copy_name(set), node};
        }
    }
    if (unset && (x = entry_find(e, unset, strlen(unset)))) {
        struct mem_entry gone = *x;
        *x = e->v[--e->n];
        free(gone.name);
        mem_node_unref(d, gone.node);
    }
}

void mem_dir_change(struct mem_disk *d, struct mem_node *dir, uint64_t seq, const char *unset, const char *set,
                    struct mem_node *node, struct mem_node *twin)
{
    dir->changes = more(dir->changes, dir->change_n, &dir->change_cap, sizeof *dir->changes);
    if (node) mem_node_ref(node);
    if (twin) mem_node_ref(twin);
    dir->changes[dir->change_n++] = (struct mem_change){seq, copy_name(unset), copy_name(set), node, twin};
    entries_apply(d, &dir->now, unset, set, node);
}

/* Makes the changes up to seq durable; a rename between directories takes the other one along. */
static void dir_commit(struct mem_disk *d, struct mem_node *dir, uint64_t seq)
{
    mem_node_ref(dir);
    while (dir->change_n && dir->changes[0].seq <= seq) {
        struct mem_change c = dir->changes[0];
        memmove(dir->changes, dir->changes + 1, --dir->change_n * sizeof *dir->changes);
        entries_apply(d, &dir->kept, c.unset, c.set, c.node);
        if (c.twin) dir_commit(d, c.twin, c.seq);
        change_release(d, &c);
    }
    mem_node_unref(d, dir);
}

void mem_dir_sync(struct mem_disk *d, struct mem_node *dir)
{
    dir_commit(d, dir, UINT64_MAX);
}

/* ---- files ---- */

static void note_write(struct mem_node *f, const void *src, size_t n, uint64_t at, bool resize)
{
    struct mem_write w = {.at = at, .n = n, .resize = resize};
    if (n) {
        w.p = malloc(n);
        VV_ASSERT(w.p);
        memcpy(w.p, src, n);
    }
    f->writes = more(f->writes, f->write_n, &f->write_cap, sizeof *f->writes);
    f->writes[f->write_n++] = w;
}

int mem_file_write(struct mem_disk *d, struct mem_node *f, const void *src, size_t n, uint64_t at)
{
    uint64_t grow = at + n > f->live.n ? at + n - f->live.n : 0;
    int err = VV_OK;
    VV_ASSERT(at + n < FILE_MAX);
    if (d->capacity && d->used + grow > d->capacity) {
        uint64_t room = d->capacity > d->used ? d->capacity - d->used : 0, end = f->live.n + room;
        n = end > at ? (size_t)(end - at) : 0;
        err = VV_E_NOSPC;
    }
    if (!n) return err;
    size_t before = f->live.n;
    bytes_put(&f->live, src, n, at);
    d->used += f->live.n - before;
    note_write(f, src, n, at, false);
    return err;
}

int mem_file_resize(struct mem_disk *d, struct mem_node *f, uint64_t size)
{
    VV_ASSERT(size < FILE_MAX);
    if (size > f->live.n && d->capacity && d->used + size - f->live.n > d->capacity) return VV_E_NOSPC;
    d->used = d->used + size - f->live.n;
    bytes_resize(&f->live, (size_t)size);
    note_write(f, NULL, 0, size, true);
    return VV_OK;
}

void mem_file_sync(struct mem_node *f)
{
    for (size_t i = 0; i < f->write_n; i++) {
        struct mem_write *w = &f->writes[i];
        if (w->resize) bytes_resize(&f->disk, (size_t)w->at);
        else bytes_put(&f->disk, w->p, w->n, w->at);
    }
    writes_clear(f);
}

/* ---- the power cut ---- */

enum fate { LOST, KEPT, ZEROS, TORN, FATES };

static void tear(struct vv_rand *r, struct mem_bytes *disk, const struct mem_write *w)
{
    for (uint64_t at = w->at, end = w->at + w->n; at < end;) {
        uint64_t stop = (at / SECTOR + 1) * SECTOR;
        if (stop > end) stop = end;
        if (vv_rand_percent(r, 50)) bytes_put(disk, w->p + (at - w->at), (size_t)(stop - at), at);
        at = stop;
    }
}

static void file_crash(struct mem_disk *d, struct mem_node *f, struct vv_rand *r)
{
    /* A file as a whole: all lost, all there, or each write for itself. */
    enum mood { ALL_LOST, ALL_KEPT, EACH } mood = f->write_n ? (enum mood)vv_rand_below(r, 4) : ALL_KEPT;
    for (size_t i = 0; mood != ALL_LOST && i < f->write_n; i++) {
        struct mem_write *w = &f->writes[i];
        enum fate fate = mood == ALL_KEPT ? KEPT : (enum fate)vv_rand_below(r, FATES);
        if (fate == LOST) continue;
        if (w->resize) bytes_resize(&f->disk, (size_t)w->at);
        else if (fate == KEPT) bytes_put(&f->disk, w->p, w->n, w->at);
        else if (fate == TORN) tear(r, &f->disk, w);
        else if (w->at + w->n > f->disk.n) bytes_resize(&f->disk, (size_t)(w->at + w->n));
    }
    writes_clear(f);
    d->used -= f->live.n;
    bytes_resize(&f->live, 0);
    bytes_put(&f->live, f->disk.p, f->disk.n, 0);
    d->used += f->live.n;
    f->cold = true;
    f->locked = false;
}

static void dir_crash(struct mem_disk *d, struct mem_node *dir, struct vv_rand *r)
{
    if (!dir->change_n) return;
    size_t keep = 0, n = dir->change_n;
    switch (vv_rand_below(r, 3)) {
    case 0: break;
    case 1: keep = n; break;
    default: keep = (size_t)vv_rand_below(r, n + 1);
    }
    if (keep) dir_commit(d, dir, dir->changes[keep - 1].seq);
}

void mem_disk_crash(struct mem_disk *d, uint64_t seed)
{
    struct vv_rand r;
    vv_rand_seed(&r, seed);
    for (struct mem_node *n = d->first; n; n = n->next) n->refs++;
    for (struct mem_node *n = d->first; n; n = n->next) {
        if (n->is_dir) dir_crash(d, n, &r);
        else file_crash(d, n, &r);
    }
    for (struct mem_node *n = d->first; n; n = n->next) { /* after all: a rename reaches into other directories */
        if (!n->is_dir) continue;
        for (size_t i = 0; i < n->change_n; i++) change_release(d, &n->changes[i]);
        n->change_n = 0;
        entries_clear(d, &n->now);
        for (size_t i = 0; i < n->kept.n; i++) entries_apply(d, &n->now, NULL, n->kept.v[i].name, n->kept.v[i].node);
    }
    struct mem_node *next;
    for (struct mem_node *n = d->first; n; n = next) {
        next = n->next; /* still holds the reference taken above */
        mem_node_unref(d, n);
    }
}
