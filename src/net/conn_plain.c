/* conn_plain.c — the transport without encryption: the socket itself. TLS would be a second set of these ops. */
#include "net_impl.h"

#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <stddef.h>
#include <unistd.h>

static ssize_t plain_read(struct vv_conn *c, void *dst, size_t n)
{
    ssize_t r;
    do
        r = recv(c->fd, dst, n, 0);
    while (r < 0 && errno == EINTR);
    if (r > 0) return r;
    return r < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? VV_E_AGAIN : VV_E_SHUTDOWN;
}

static ssize_t plain_writev(struct vv_conn *c, const struct iovec *v, int n)
{
    struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)v, .msg_iovlen = (size_t)n};
    ssize_t r;
    do
        r = sendmsg(c->fd, &m, MSG_NOSIGNAL);
    while (r < 0 && errno == EINTR);
    if (r >= 0) return r;
    return errno == EAGAIN || errno == EWOULDBLOCK ? VV_E_AGAIN : VV_E_SHUTDOWN;
}

static void plain_close(struct vv_conn *c)
{
    close(c->fd);
}

/* The least of the last minutes: a busy machine does not make a neighbour a stranger. */
static int64_t plain_rtt_us(struct vv_conn *c)
{
    struct tcp_info info = {0};
    socklen_t n = sizeof info;
    if (getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &n) || n < offsetof(struct tcp_info, tcpi_min_rtt) + sizeof info.tcpi_min_rtt)
        return INT64_MAX;
    return info.tcpi_min_rtt;
}

const struct vv_transport_ops vv_transport_plain = {.read = plain_read, .writev = plain_writev, .close = plain_close, .rtt_us = plain_rtt_us};
