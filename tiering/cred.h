/* cred.h — where an S3 client's credentials and region come from, in AWS's own order: the
 * configuration, the environment, a web identity, the shared credentials file, instance metadata. Any thread. Secrets stay in here and
 * in the caller's struct vv_cred. */
#ifndef VARVE_CRED_H
#define VARVE_CRED_H
#include "varve/objstore.h"

enum { VV_CRED_KEY_MAX = 192, VV_CRED_TOKEN_MAX = 4096 };

struct vv_cred { /* wipe with vv_cred_wipe after use */
    char access_key_id[VV_CRED_KEY_MAX], secret_access_key[VV_CRED_KEY_MAX];
    char session_token[VV_CRED_TOKEN_MAX]; /* "" = none */
};

struct vv_creds;
int vv_creds_new(const struct vv_objstore_config *config, struct vv_env *env, struct vv_creds **out,
                 struct vv_error *e);
void vv_creds_free(struct vv_creds *c);
/* E_ACCESS and a text that says where was looked when there are none. Looks at the file's mtime,
 * and reads it again when that changed. The first call may wait for a service that gives them out, seconds at most. */
int vv_creds_get(struct vv_creds *c, struct vv_cred *out, struct vv_error *e);
/* After a 403: reads the file whatever its mtime. True if there is something else to try now. */
bool vv_creds_reload(struct vv_creds *c);
/* The region of config, environment or profile file; "us-east-1" otherwise. */
void vv_creds_region(struct vv_creds *c, char *out, size_t cap);
void vv_cred_wipe(struct vv_cred *cred);
/* getenv unless the configuration says to ignore the environment; NULL when unset or empty. */
const char *vv_cred_env(const struct vv_objstore_config *config, const char *name);

/* For the unit test: takes [profile] out of the text of a credentials file. */
bool vv_cred_parse(const char *text, const char *profile, struct vv_cred *out, char *region,
                   size_t region_cap);
#endif
