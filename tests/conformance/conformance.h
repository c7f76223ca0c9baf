/* conformance.h — the contract of varve/objstore.h as tests, for any store: used by the program
 * objstore_conformance and by the unit test that runs it over a directory. One thread unless a test
 * says so. */
#ifndef VARVE_CONFORMANCE_H
#define VARVE_CONFORMANCE_H
#include "varve/objstore.h"

struct conformance_options {
    bool many; /* also the tests with > 1000 objects */
    bool big;  /* also multipart and a 24 MiB object; the store was opened with part_size = 5 MiB */
    const char *only; /* substring of the tests to run; NULL = all */
    unsigned caps;    /* what the server really does (probed); tests of what is missing are named as
                         skipped */
};
/* Runs all under prefix `root` (made unique by the caller), removes what it made, prints a line per
 * test. Returns the number of failed tests. */
int conformance_run(struct vv_objstore *s, const char *root,
                    const struct conformance_options *options);
#endif
