/* manifest_impl.h — what manifest.c and manifest_replace.c share. */
#ifndef VARVE_TIERING_MANIFEST_IMPL_H
#define VARVE_TIERING_MANIFEST_IMPL_H
#include "manifest.h"

#include <jansson.h>

struct vv_mf_list { struct vv_extent *v; size_t n, cap; };
int vv_mf_list_push(struct vv_mf_list *l, const struct vv_extent *x);
json_t *vv_mf_extent_json(const struct vv_extent *x);
json_t *vv_mf_ref_json(const struct vv_pageref *r);
int vv_mf_ref_parse(const json_t *o, struct vv_pageref *r);
int vv_mf_segments_parse(const json_t *arr, struct vv_mf_list *out);
int vv_mf_level_push(struct vv_manifest_level *l, const struct vv_pageref *r);
int vv_mf_garbage_add(struct vv_manifest *m, const char *key);
/* A page by its reference, hash and identity checked. */
int vv_mf_get_page(const struct vv_manifest_where *w, int level, const struct vv_pageref *r, json_t **out, struct vv_error *e);
/* The entries of a page as its bytes have them: segments at level 1, references above. E_CORRUPT: not a page as we write it. */
int vv_mf_scan(const struct vv_manifest_where *w, int level, const char *p, size_t n, struct vv_mf_list *segments,
               struct vv_manifest_level *refs);
/* Writes entries (and more, may be NULL, as "pages"; both taken over) as one immutable page and fills ref->sha256. */
int vv_mf_put_page(const struct vv_manifest_where *w, int level, json_t *entries, json_t *more, struct vv_pageref *ref,
                   struct vv_error *e);
/* What the index knows to be in the bucket above the pages. */
int vv_mf_collect(struct vv_manifest *m, struct vv_index *ix, struct vv_mf_list *l);
int vv_mf_put_head(struct vv_manifest *m, const struct vv_manifest_where *w, const struct vv_mf_list *l, struct vv_error *e);
/* Loads if need be; the index and the writer's epoch must fit what the bucket has. */
int vv_mf_ready(struct vv_manifest *m, const struct vv_manifest_where *w, struct vv_index *ix, struct vv_error *e);
/* manifest_replace.c: the heads' list of replaced runs; settles an intent whose replacement is in the manifest already. */
json_t *vv_mf_replaced_json(const struct vv_manifest *m);
int vv_mf_replaced_parse(struct vv_manifest *m, const json_t *arr); /* NULL: none */
int vv_mf_replaced_each_ref(const struct vv_manifest *m, const struct vv_manifest_where *w, vv_manifest_each_page each, void *ctx,
                            struct vv_error *e); /* pages that are kept for the grace, and those that say so */
int vv_mf_settle(const struct vv_manifest *m, struct vv_index *ix);
#endif
