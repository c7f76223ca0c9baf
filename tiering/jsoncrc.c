/* jsoncrc.c — see jsoncrc.h. */
#include "jsoncrc.h"
#include "varve/bytes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEAL ", \"crc\": \""
#define SEAL_BYTES (sizeof SEAL - 1 + 8 + 2)

char *vv_jsoncrc_add(const char *json, size_t n, size_t *out_n)
{
    while (n && json[n - 1] == '\n') n--;
    bool object = n && json[n - 1] == '}';
    char *text = malloc(n + SEAL_BYTES + 1);
    if (!text) return NULL;
    memcpy(text, json, n);
    text[n] = 0;
    *out_n = n;
    if (!object) return text;
    n--;
    *out_n = n + (size_t)sprintf(text + n, SEAL "%08x\"}", vv_crc32c(0, text, n));
    return text;
}

static bool has(const char *json, size_t n)
{
    return n >= SEAL_BYTES && !memcmp(json + n - SEAL_BYTES, SEAL, sizeof SEAL - 1);
}

bool vv_jsoncrc_holds(const char *json, size_t n)
{
    char want[SEAL_BYTES + 1];
    if (!has(json, n)) return true;
    snprintf(want, sizeof want, SEAL "%08x\"}", vv_crc32c(0, json, n - SEAL_BYTES));
    return !memcmp(json + n - SEAL_BYTES, want, SEAL_BYTES);
}

void vv_jsoncrc_strip(char *text, size_t *n)
{
    if (!has(text, *n)) return;
    *n -= SEAL_BYTES - 1;
    strcpy(text + *n - 1, "}");
}
