/* env_backends.h — the backends of the seams, for whoever composes an environment. */
#ifndef VARVE_ENV_BACKENDS_H
#define VARVE_ENV_BACKENDS_H
#include "varve/env.h"

extern const struct vv_fs_ops vv_fs_posix_ops;
extern const struct vv_clock_ops vv_clock_real_ops;
extern const struct vv_random_ops vv_random_real_ops;
#endif
