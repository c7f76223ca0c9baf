/* paging.c — moves runs of old REMOTE extents to the extent file and back. File and fences: pages.h, fences.h.
 *
 * Out: write pages, sync the file, one record with their fences, then memory. Back: one record with the page's extents, then
 * memory. Threads: the holder of commit; mu is held for memory work only, never across I/O. */
#include "index_impl.h"

#include <stdlib.h>

#define PAGE_KEEP 256 /* newest resident extents that stay: readers are mostly there */

/* From i on, the first run of 64 old REMOTE extents with no page in between; n when there is none. mu held. */
static size_t page_run(const struct vv_index *ix, size_t i)
{
    size_t run = 0;
    for (; i + PAGE_KEEP < ix->n; i++) {
        if (ix->v[i].state != VV_EXTENT_REMOTE) {
            run = 0;
            continue;
        }
        bool follows = run && (ix->v[i].base == ix->v[i - 1].last + 1 ||
                               vv_fences_lower(&ix->f, ix->v[i].base) == vv_fences_lower(&ix->f, ix->v[i - 1].base));
        run = follows ? run + 1 : 1;
        if (run == VV_PAGE_EXTENTS) return i + 1 - run;
    }
    return ix->n;
}

/* ---- slots of the extent file ---- */

static int slot_free(struct vv_index *ix, uint32_t slot)
{
    if (ix->slot_count == ix->slot_cap) {
        size_t cap = ix->slot_cap ? ix->slot_cap * 2 : 64;
        uint32_t *v = realloc(ix->slots, cap * sizeof *v);
        if (!v) return VV_E_NOMEM;
        ix->slots = v;
        ix->slot_cap = cap;
    }
    ix->slots[ix->slot_count++] = slot;
    return VV_OK;
}

/* Free are those below the highest one in use that no fence has. */
static int slots_look(struct vv_index *ix)
{
    uint32_t top = 0;
    for (size_t i = 0; i < ix->f.n; i++) top = VV_MAX(top, ix->f.v[i].slot + 1);
    uint8_t *used = calloc((size_t)top + 1, 1);
    int err = used ? VV_OK : VV_E_NOMEM;
    for (size_t i = 0; used && i < ix->f.n; i++) used[ix->f.v[i].slot] = 1;
    ix->slot_count = 0;
    ix->slot_top = top;
    for (uint32_t s = top; s-- > 0 && !err;)
        if (!used[s]) err = slot_free(ix, s);
    ix->slots_known = !err;
    free(used);
    return err;
}

static uint32_t slot_take(struct vv_index *ix)
{
    return ix->slot_count ? ix->slots[--ix->slot_count] : ix->slot_top++;
}

/* ---- out ---- */

/* Fences that are durable take their extents' place. */
static int replace(struct vv_index *ix, const struct vv_fence *f, size_t n)
{
    int err = VV_OK;
    pthread_mutex_lock(&ix->mu);
    for (size_t i = 0; i < n && !err; i++) {
        err = vv_fences_insert(&ix->f, &f[i]);
        size_t at = vv_ix_lower(ix, f[i].base);
        if (!err) vv_ix_cut(ix, at, at + VV_PAGE_EXTENTS);
    }
    pthread_mutex_unlock(&ix->mu);
    return err;
}

static int record(struct vv_index *ix, const struct vv_fence *f, size_t n)
{
    uint8_t rec[VV_FENCES_PER_RECORD * VV_FENCE_BYTES];
    int err = vv_pages_sync(&ix->pages);
    for (size_t i = 0; i < n; i++) vv_fence_encode(&f[i], rec + i * VV_FENCE_BYTES);
    return err ? err : vv_journal_append(&ix->journal, REC_PAGES, rec, n * VV_FENCE_BYTES);
}

/* Writes up to VV_FENCES_PER_RECORD pages. */
static int write_pages(struct vv_index *ix, struct vv_fence *f, size_t *n)
{
    struct vv_extent *run = malloc(VV_PAGE_EXTENTS * sizeof *run);
    int err = run ? VV_OK : VV_E_NOMEM;
    size_t at = 0;
    *n = 0;
    while (!err && *n < VV_FENCES_PER_RECORD) {
        pthread_mutex_lock(&ix->mu);
        at = page_run(ix, at);
        bool any = at < ix->n;
        if (any) memcpy(run, &ix->v[at], VV_PAGE_EXTENTS * sizeof *run); /* REMOTE ones stay as they are while commit is held */
        pthread_mutex_unlock(&ix->mu);
        if (!any) break;
        f[*n] = (struct vv_fence){.slot = slot_take(ix)};
        err = vv_pages_write(&ix->pages, run, &f[*n]);
        at += VV_PAGE_EXTENTS;
        ++*n;
    }
    free(run);
    return err;
}

/* journal false: the caller writes a checkpoint before he calls anything durable. */
int vv_ix_page_out(struct vv_index *ix, bool journal)
{
    struct vv_fence f[VV_FENCES_PER_RECORD];
    size_t n = 0;
    int err = ix->slots_known ? VV_OK : slots_look(ix);
    do {
        if (!err) err = write_pages(ix, f, &n);
        if (!err && n && journal) err = record(ix, f, n);
        if (!err) err = replace(ix, f, n);
    } while (!err && n == VV_FENCES_PER_RECORD);
    if (err) ix->slots_known = false; /* what was taken and not used is free again */
    pthread_mutex_lock(&ix->mu);
    ix->page_next = VV_MAX((size_t)VV_PAGE_OUT_AT, ix->n + VV_PAGE_OUT_AT / 2);
    pthread_mutex_unlock(&ix->mu);
    return err;
}

/* ---- back ---- */

int vv_ix_unpage(struct vv_index *ix, int64_t base)
{
    size_t k;
    if (!vv_fences_hold(&ix->f, base, &k)) return VV_E_NOENT;
    const struct vv_fence f = ix->f.v[k];
    struct vv_extent *v = malloc(VV_PAGE_EXTENTS * sizeof *v);
    uint8_t *page = malloc(VV_PAGE_BYTES);
    int err = v && page ? vv_pages_get(&ix->pages, &f, v) : VV_E_NOMEM;
    if (!err) {
        vv_page_encode(v, page);
        err = vv_journal_append(&ix->journal, REC_UNPAGE, page, VV_PAGE_BYTES);
    }
    if (!err) {
        pthread_mutex_lock(&ix->mu);
        vv_fences_remove(&ix->f, k, k + 1);
        for (size_t i = 0; i < VV_PAGE_EXTENTS && !err; i++) err = vv_ix_put(ix, &v[i]);
        ix->page_next = VV_MAX(ix->page_next, ix->n + VV_PAGE_OUT_AT / 4); /* it is wanted here just now */
        pthread_mutex_unlock(&ix->mu);
        if (!err && ix->slots_known) err = slot_free(ix, f.slot);
    }
    free(page);
    free(v);
    return err;
}
