/* fs_mem_node.h — files and directories of fs_mem, each as it is and as the platter has it. Private to fs_mem; under
 * its mutex. */
#ifndef VARVE_FS_MEM_NODE_H
#define VARVE_FS_MEM_NODE_H
#include "env_sim.h"

struct mem_bytes { uint8_t *p; size_t n, cap; };
struct mem_write { uint64_t at; size_t n; uint8_t *p; bool resize; }; /* resize: size became `at` */

struct mem_node;
struct mem_entry { char *name; struct mem_node *node; };
struct mem_entries { struct mem_entry *v; size_t n, cap; };
/* One change of a directory: `unset` goes, `set` becomes node. A rename between directories is one in each, twins. */
struct mem_change { uint64_t seq; char *unset, *set; struct mem_node *node, *twin; };

struct mem_node {
    struct mem_node *prev, *next; /* all nodes, oldest first */
    int refs;                     /* entries, changes, open files */
    bool is_dir, locked, cold;    /* cold: pread_nowait would have to wait */
    int64_t mtime_ms;
    struct mem_bytes live, disk;  /* file */
    struct mem_write *writes;     /* since the last datasync, in order */
    size_t write_n, write_cap;
    struct mem_entries now, kept; /* directory */
    struct mem_change *changes;   /* since the last sync_dir, in order */
    size_t change_n, change_cap;
};
struct mem_disk { struct mem_node *first, *last, *root; uint64_t seq, used, capacity; };

struct mem_node *mem_node_new(struct mem_disk *d, bool is_dir); /* one reference */
void mem_node_ref(struct mem_node *n);
void mem_node_unref(struct mem_disk *d, struct mem_node *n);
void mem_disk_free(struct mem_disk *d);

struct mem_node *mem_dir_find(const struct mem_node *dir, const char *name, size_t name_n);
/* unset, set and node as in mem_change. Between directories: call on both with the same seq and twins. */
void mem_dir_change(struct mem_disk *d, struct mem_node *dir, uint64_t seq, const char *unset, const char *set,
                    struct mem_node *node, struct mem_node *twin);
void mem_dir_sync(struct mem_disk *d, struct mem_node *dir);

int mem_file_write(struct mem_disk *d, struct mem_node *f, const void *src, size_t n, uint64_t at);
int mem_file_resize(struct mem_disk *d, struct mem_node *f, uint64_t size);
void mem_file_sync(struct mem_node *f);

void mem_disk_crash(struct mem_disk *d, uint64_t seed);
#endif
