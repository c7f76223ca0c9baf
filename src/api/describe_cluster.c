/* describe_cluster.c — DescribeCluster: this broker is all of it. Threads: the connection's reactor. */
#include "defer.h"
#include "gen/messages.h"

#define ENDPOINT_BROKERS   1
#define CLUSTER_OPERATIONS 8096 /* all that exist for a cluster: nobody is refused */

void vv_handle_describe_cluster(struct vv_call *c)
{
    const struct DescribeClusterRequest *q = c->req;
    struct DescribeClusterResponse r;
    struct DescribeClusterResponse_DescribeClusterBroker self;
    VV_MSG_INIT(DescribeClusterResponse, &r);
    VV_STRUCT_INIT(DescribeClusterResponse_DescribeClusterBroker, &self);
    r.EndpointType = ENDPOINT_BROKERS;
    if (q->EndpointType != ENDPOINT_BROKERS) {
        r.ErrorCode = q->EndpointType == 2 ? VV_MISMATCHED_ENDPOINT_TYPE : VV_UNSUPPORTED_ENDPOINT_TYPE;
        r.ErrorMessage = VV_STR_LIT("This is a broker's endpoint: ask it for endpoint type 1 (brokers).");
        vv_call_reply(c, &r);
        return;
    }
    const char *host;
    int port;
    vv_broker_endpoint(c->broker, vv_conn_listener(c->x->conn), &host, &port);
    self.BrokerId = c->broker->node_id;
    self.Host = vv_str_c(host);
    self.Port = port;
    r.ClusterId = vv_str_c(c->broker->cluster_id);
    r.ControllerId = c->broker->node_id;
    r.Brokers.v = &self;
    r.Brokers.n = 1;
    if (q->IncludeClusterAuthorizedOperations) r.ClusterAuthorizedOperations = CLUSTER_OPERATIONS;
    vv_call_reply(c, &r);
}
