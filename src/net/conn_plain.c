/* conn_plain.c — the transport without encryption: the socket itself. TLS would be a second set of these ops. */
#include "net_impl.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>
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

const struct vv_transport_ops vv_transport_plain = {.read = plain_read, .writev = plain_writev, .close = plain_close};
