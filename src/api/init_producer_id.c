/* init_producer_id.c — InitProducerId for idempotent producers: a new id, or the next epoch of the one held (KIP-360).
 *
 * An epoch is bumped only for ids that this broker can have given out; at the end of the epochs there is a new id. A
 * transactional id is refused with what producers take for final. Ids come from control, which may write a block. */
#include "broker.h"
#include "call.h"
#include "gen/messages.h"

struct producer_exchange {
    struct vv_task task;
    struct vv_call *call;
};

static void answer(struct vv_call *c, int err, int64_t id, int16_t epoch)
{
    struct InitProducerIdResponse response;
    VV_MSG_INIT(InitProducerIdResponse, &response);
    response.ErrorCode = (int16_t)vv_err_kafka(err);
    response.ProducerId = err ? -1 : id;
    response.ProducerEpoch = err ? -1 : epoch;
    vv_call_reply(c, &response);
}

static void on_control(struct vv_task *t)
{
    struct vv_call *c = VV_CONTAINER(t, struct producer_exchange, task)->call;
    const struct InitProducerIdRequest *r = c->req;
    int64_t id = -1;
    if (r->ProducerId >= 0 && r->ProducerEpoch >= 0 && r->ProducerEpoch < INT16_MAX - 1 &&
        r->ProducerId < vv_producer_ids_reserved(c->broker)) {
        answer(c, 0, r->ProducerId, (int16_t)(r->ProducerEpoch + 1));
        return;
    }
    int err = vv_producer_id_next(c->broker, &id);
    /* As Kafka says when it has no block of ids: old and new clients ask again after this one. */
    answer(c, err ? VV_COORDINATOR_LOAD_IN_PROGRESS : 0, err ? -1 : id, 0);
}

void vv_handle_init_producer_id(struct vv_call *c)
{
    const struct InitProducerIdRequest *r = c->req;
    if (r->TransactionalId.n >= 0) {
        answer(c, r->TransactionalId.n ? VV_TRANSACTIONAL_ID_AUTHORIZATION_FAILED : VV_INVALID_REQUEST, -1, -1);
        return;
    }
    if ((r->ProducerId < 0) != (r->ProducerEpoch < 0)) {
        answer(c, VV_INVALID_REQUEST, -1, -1);
        return;
    }
    struct producer_exchange *x = vv_arena_alloc(vv_call_arena(c), sizeof *x);
    if (!x) {
        vv_call_close(c, "the request leaves no room to answer it");
        return;
    }
    x->task.run = on_control;
    x->call = c;
    vv_broker_control_post(c->broker, &x->task);
}
