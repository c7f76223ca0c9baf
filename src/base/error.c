/* error.c — names and mappings of the tables in varve/error.h. Pure; any thread. */
#include "varve/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

const char *vv_err_name(int err)
{
    switch (err) {
#define VV_X(name, code)                                                                           \
    case code:                                                                                     \
        return #name;
        VV_KAFKA_ERRORS(VV_X)
#undef VV_X
#define VV_X(name, code, kafka, text)                                                              \
    case code:                                                                                     \
        return text;
        VV_LOCAL_ERRORS(VV_X)
#undef VV_X
    default:
        return "unknown error";
    }
}

int vv_err_kafka(int err)
{
    switch (err) {
#define VV_X(name, code, kafka, text)                                                              \
    case code:                                                                                     \
        return VV_##kafka;
        VV_LOCAL_ERRORS(VV_X)
#undef VV_X
    default:
        return err;
    }
}

int vv_err_from_errno(int errnum)
{
    switch (errnum) {
    case 0:
        return VV_OK;
    case ENOSPC:
    case EDQUOT:
        return VV_E_NOSPC;
    case ENOENT:
        return VV_E_NOENT;
    case EEXIST:
    case ENOTEMPTY:
        return VV_E_EXIST;
    case ENOMEM:
        return VV_E_NOMEM;
    case EACCES:
    case EPERM:
    case EROFS:
        return VV_E_ACCESS;
    case EAGAIN:
        return VV_E_AGAIN;
    case ETIMEDOUT:
        return VV_E_TIMEOUT;
    case EMFILE:
    case ENFILE:
        return VV_E_NOFILE;
    default:
        return VV_E_IO;
    }
}

int vv_error_set(struct vv_error *e, int code, const char *fmt, ...)
{
    if (e) {
        va_list ap;
        e->code = code;
        va_start(ap, fmt);
        vsnprintf(e->text, sizeof e->text, fmt, ap);
        va_end(ap);
    }
    return code;
}
