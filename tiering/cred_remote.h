/* cred_remote.h — temporary credentials that a service gives out: AWS STS for a web identity token (Kubernetes' IRSA and the like),
 * the instance metadata service (IMDSv2 only) for the role of the machine. Blocking; any thread; keeps nothing.
 * Source: AWS STS API reference, AssumeRoleWithWebIdentity; EC2 user guide, "Use the Instance Metadata Service"; names of the
 * environment: AWS SDKs and tools reference guide. */
#ifndef VARVE_CRED_REMOTE_H
#define VARVE_CRED_REMOTE_H
#include "cred.h"

enum vv_cred_service { VV_CRED_NO_SERVICE, VV_CRED_WEB_IDENTITY, VV_CRED_METADATA };

struct vv_cred_remote {
    enum vv_cred_service service;
    char endpoint[300]; /* without '/' at the end */
    char role_arn[512], session[128], token_file[1024];
    char ca_file[512];
};
const char *vv_cred_service_name(enum vv_cred_service s); /* for messages */
/* What the environment says: AWS_ROLE_ARN with AWS_WEB_IDENTITY_TOKEN_FILE (AWS_ROLE_SESSION_NAME, AWS_ENDPOINT_URL_STS), else the
 * metadata service (AWS_EC2_METADATA_SERVICE_ENDPOINT) unless AWS_EC2_METADATA_DISABLED=true. */
void vv_cred_remote_find(const struct vv_objstore_config *config, const char *region, struct vv_cred_remote *out);
/* *expires_ms: wall clock, 0 = not told. E_ACCESS: refused, or nobody answers. */
int vv_cred_remote_fetch(const struct vv_cred_remote *r, struct vv_env *env, struct vv_cred *out, int64_t *expires_ms,
                         struct vv_error *e);
#endif
