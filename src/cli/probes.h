/* probes.h — what this machine can do at this moment: the limits a result is to be seen beside. Each probe takes
 * some tenths of a second, on the calling thread (loopback: two). */
#ifndef VARVE_CLI_PROBES_H
#define VARVE_CLI_PROBES_H
#include "varve/error.h"

struct vv_probes {
    double load1;                    /* load average before the probes: others were running */
    int cpus;                        /* this process may use */
    double memcpy_gb_s;              /* 64 MiB to 64 MiB: memory, not cache */
    double crc32c_gb_s;              /* 64 KiB pieces */
    double loopback_mb_s;            /* one TCP connection over 127.0.0.1, 256 KiB writes */
    double append_cold_mb_s;         /* a new file in 64 KiB writes, page cache only */
    double append_mb_s;              /* the same again, on pages the first pass left behind */
    double sync_p50_us, sync_p99_us; /* append of 4 KiB and fdatasync */
    int syncs;
};
/* dir: where the file probes write (and remove what they wrote). */
int vv_probe_machine(const char *dir, struct vv_probes *out, struct vv_error *e);
/* Two TCP sockets connected over loopback, blocking. 0 or E_IO. */
int vv_probe_tcp_pair(int fds[2]);
#endif
