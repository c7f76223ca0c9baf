/* obj_s3.c — S3 over libcurl: being built. */
#include "obj_backends.h"
int vv_obj_s3_open(const char *url, const struct vv_objstore_config *config, struct vv_env *env,
                   struct vv_objstore **out, struct vv_error *e)
{
    (void)config, (void)env, (void)out;
    return vv_error_set(e, VV_E_UNSUPPORTED, "%s: not built in yet", url);
}
