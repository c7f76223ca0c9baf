/* jsontext.c — see jsontext.h. */
#include "jsontext.h"

#include <stdbool.h>
#include <stdlib.h>

static _Thread_local bool starved;

static void *allocate(size_t n)
{
    void *p = malloc(n);
    if (!p) starved = true;
    return p;
}

__attribute__((constructor)) static void watch(void)
{
    json_set_alloc_funcs(allocate, free);
}

char *vv_json_text(const json_t *o, size_t flags)
{
    char *text = starved ? NULL : json_dumps(o, flags);
    starved = false;
    return text;
}
