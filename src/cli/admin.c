/* admin.c — see admin.h. */
#include "admin.h"
#include "table.h"

#include "varve/bytes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct vv_client *vv_admin_open(const struct vv_args *a)
{
    struct vv_client *c;
    struct vv_error e = {0};
    if (vv_client_open(vv_arg(a, "bootstrap"), "varve-cli", &c, &e)) {
        vv_cli_fail(a, "%s", e.text);
        return NULL;
    }
    return c;
}

bool vv_admin_pairs(const struct vv_args *a, const char *option, struct vv_admin_pair **out,
                    size_t *n)
{
    size_t count;
    const char **all = vv_arg_all(a, option, &count);
    struct vv_admin_pair *p = calloc(count + 1, sizeof *p);
    bool ok = all && p;
    *n = 0;
    for (size_t i = 0; ok && i < count; i++) {
        const char *eq = strchr(all[i], '=');
        if (!eq || eq == all[i]) {
            vv_cli_usage(a, "--%s %s: expected KEY=VALUE", option, all[i]);
            ok = false;
            break;
        }
        p[i] = (struct vv_admin_pair){strndup(all[i], (size_t)(eq - all[i])), eq + 1};
        ok = p[i].key != NULL;
        ++*n;
    }
    free(all);
    if (!ok) {
        vv_admin_free_pairs(p, *n);
        p = NULL;
    }
    *out = p;
    return ok;
}

void vv_admin_free_pairs(struct vv_admin_pair *p, size_t n)
{
    for (size_t i = 0; p && i < n; i++)
        free(p[i].key);
    free(p);
}

bool vv_admin_time(const char *text, int64_t *ms)
{
    struct tm tm = {0};
    char *end;
    if (!strncmp(text, "ts:", 3)) {
        *ms = strtoll(text + 3, &end, 10);
        return text[3] && !*end;
    }
    const char *p = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!p && (p = strptime(text, "%Y-%m-%d", &tm)) && !*p) {
        *ms = (int64_t)timegm(&tm) * 1000;
        return true;
    }
    if (!p) return false;
    int64_t t = (int64_t)timegm(&tm) * 1000;
    if (*p == '.') {
        int64_t unit = 100;
        for (p++; *p >= '0' && *p <= '9'; p++, unit /= 10)
            t += (*p - '0') * unit;
    }
    if (*p == 'Z' || *p == 'z') {
        p++;
    } else if (*p == '+' || *p == '-') {
        int h, m, used = 0;
        if (sscanf(p + 1, "%2d:%2d%n", &h, &m, &used) != 2) return false;
        t -= (*p == '+' ? 1 : -1) * (h * 60 + m) * 60000LL;
        p += 1 + used;
    } else {
        return false;
    }
    *ms = t;
    return !*p;
}

int vv_admin_refused(const struct vv_args *a, const char *kind, struct vv_str name, int code,
                     struct vv_str message)
{
    return vv_cli_fail(a, "%s %.*s: %s%s%.*s", kind, VV_STR_ARG(name), vv_err_name(code),
                       message.n > 0 ? ": " : "", VV_STR_ARG(message));
}

static int refused_by(struct vv_error *e, const char *kind, const char *name, int code, struct vv_str message)
{
    return vv_error_set(e, code, "%s %s: %s%s%.*s", kind, name, vv_err_name(code), message.n > 0 ? ": " : "", VV_STR_ARG(message));
}

static int refused(struct vv_error *e, const char *topic, int code, struct vv_str message)
{
    return refused_by(e, "topic", topic, code, message);
}

/* type: 2 a topic, 4 a broker. */
static int alter(struct vv_client *c, int32_t node, int8_t type, const char *name, const struct vv_admin_pair *pairs, size_t n,
                 struct vv_error *e)
{
    struct IncrementalAlterConfigsRequest rq;
    struct IncrementalAlterConfigsRequest_AlterConfigsResource res;
    struct IncrementalAlterConfigsRequest_AlterableConfig *cfg = calloc(n + 1, sizeof *cfg);
    struct vv_reply r;
    if (!cfg) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    VV_MSG_INIT(IncrementalAlterConfigsRequest, &rq);
    VV_STRUCT_INIT(IncrementalAlterConfigsRequest_AlterConfigsResource, &res);
    for (size_t i = 0; i < n; i++) {
        VV_STRUCT_INIT(IncrementalAlterConfigsRequest_AlterableConfig, &cfg[i]);
        cfg[i].Name = vv_str_c(pairs[i].key);
        cfg[i].ConfigOperation = pairs[i].value ? 0 : 1;
        cfg[i].Value = vv_str_c(pairs[i].value);
    }
    res.ResourceType = type;
    res.ResourceName = vv_str_c(name);
    res.Configs.v = cfg;
    res.Configs.n = (int32_t)n;
    rq.Resources.v = &res;
    rq.Resources.n = 1;
    int rc = vv_client_call(c, node, 44, &rq, &r, e);
    free(cfg);
    if (rc) return rc;
    const struct IncrementalAlterConfigsResponse *rs = r.msg;
    if (rs->Responses.n > 0 && rs->Responses.v[0].ErrorCode)
        rc = refused_by(e, type == 2 ? "topic" : "broker", name, rs->Responses.v[0].ErrorCode, rs->Responses.v[0].ErrorMessage);
    vv_reply_release(&r);
    return rc;
}

int vv_admin_alter_topic(struct vv_client *c, const char *topic, const struct vv_admin_pair *pairs,
                         size_t n, struct vv_error *e)
{
    return alter(c, VV_NODE_ANY, 2, topic, pairs, n, e);
}

int vv_admin_alter_broker(struct vv_client *c, int32_t node, const struct vv_admin_pair *pairs, size_t n, struct vv_error *e)
{
    char name[16];
    snprintf(name, sizeof name, "%d", (int)node);
    return alter(c, node, 4, name, pairs, n, e);
}

int vv_admin_create_topic(struct vv_client *c, const char *topic, int32_t partitions,
                          int16_t replicas, const struct vv_admin_pair *configs, size_t n,
                          struct vv_error *e)
{
    struct CreateTopicsRequest rq;
    struct CreateTopicsRequest_CreatableTopic t;
    struct CreateTopicsRequest_CreatableTopicConfig *cfg = calloc(n + 1, sizeof *cfg);
    struct vv_reply r;
    if (!cfg) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    VV_MSG_INIT(CreateTopicsRequest, &rq);
    VV_STRUCT_INIT(CreateTopicsRequest_CreatableTopic, &t);
    for (size_t i = 0; i < n; i++) {
        VV_STRUCT_INIT(CreateTopicsRequest_CreatableTopicConfig, &cfg[i]);
        cfg[i].Name = vv_str_c(configs[i].key);
        cfg[i].Value = vv_str_c(configs[i].value);
    }
    t.Name = vv_str_c(topic);
    t.NumPartitions = partitions;
    t.ReplicationFactor = replicas;
    t.Configs.v = cfg;
    t.Configs.n = (int32_t)n;
    rq.Topics.v = &t;
    rq.Topics.n = 1;
    int rc = vv_client_call(c, VV_NODE_ANY, 19, &rq, &r, e);
    free(cfg);
    if (rc) return rc;
    const struct CreateTopicsResponse *rs = r.msg;
    if (rs->Topics.n > 0 && rs->Topics.v[0].ErrorCode)
        rc = refused(e, topic, rs->Topics.v[0].ErrorCode, rs->Topics.v[0].ErrorMessage);
    vv_reply_release(&r);
    return rc;
}

/* ---- sizes ---- */

struct sizes {
    struct vv_admin_size *v;
    size_t n, cap, next;
};

static bool is_size(const struct vv_admin_size *v, const char *topic, int32_t partition)
{
    return v->partition == partition && !strcmp(v->topic, topic);
}

static int add_size(struct sizes *s, struct vv_str topic, const struct DescribeLogDirsResponse_DescribeLogDirsPartition *p,
                    bool remote)
{
    char name[250];
    snprintf(name, sizeof name, "%.*s", VV_STR_ARG(topic));
    size_t i = s->next < s->n && is_size(&s->v[s->next], name, p->PartitionIndex) ? s->next : 0; /* as a rule in order */
    while (i < s->n && !is_size(&s->v[i], name, p->PartitionIndex))
        i++;
    if (i == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 64;
        struct vv_admin_size *v = realloc(s->v, cap * sizeof *v);
        if (!v) return VV_E_NOMEM;
        s->v = v;
        s->cap = cap;
    }
    if (i == s->n) {
        s->v[s->n] = (struct vv_admin_size){.partition = p->PartitionIndex, .segments = -1, .pending = -1};
        strcpy(s->v[s->n++].topic, name);
    }
    *(remote ? &s->v[i].remote : &s->v[i].local) += p->PartitionSize;
    if (remote) {
        s->v[i].segments = p->Segments;
        s->v[i].pending = p->PendingBytes;
    }
    s->next = i + 1;
    return 0;
}

static int take_sizes(const struct DescribeLogDirsResponse *rs, const char *topic, struct sizes *s)
{
    int rc = 0;
    for (int32_t d = 0; d < rs->Results.n; d++) {
        const struct DescribeLogDirsResponse_DescribeLogDirsResult *dir = &rs->Results.v[d];
        bool remote = dir->LogDir.n >= 9 && !memcmp(dir->LogDir.p, "remote://", 9);
        for (int32_t t = 0; t < dir->Topics.n; t++)
            for (int32_t p = 0; p < dir->Topics.v[t].Partitions.n && !rc; p++)
                if (!topic || vv_str_is(dir->Topics.v[t].Name, topic))
                    rc = add_size(s, dir->Topics.v[t].Name, &dir->Topics.v[t].Partitions.v[p], remote);
    }
    return rc;
}

int vv_admin_sizes(struct vv_client *c, const char *topic, struct vv_admin_size **out, size_t *n,
                   struct vv_error *e)
{
    struct DescribeLogDirsRequest rq;
    struct vv_reply meta, r;
    struct sizes s = {0};
    int rc = vv_client_metadata(c, topic ? &topic : NULL, topic != NULL, &meta, e);
    if (rc) return rc;
    const struct MetadataResponse *m = meta.msg;
    VV_MSG_INIT(DescribeLogDirsRequest, &rq);
    rq.Topics.n = -1;
    for (int32_t i = 0; i < m->Brokers.n && !rc; i++) {
        rc = vv_client_call(c, m->Brokers.v[i].NodeId, 35, &rq, &r, e);
        if (rc) break;
        rc = take_sizes(r.msg, topic, &s);
        vv_reply_release(&r);
    }
    vv_reply_release(&meta);
    if (rc) free(s.v);
    *out = rc ? NULL : s.v;
    *n = rc ? 0 : s.n;
    return rc;
}

static bool take_url(struct vv_str dir, const char *scheme, char out[512])
{
    int n = (int)strlen(scheme);
    bool fits = dir.n > n && !memcmp(dir.p, scheme, (size_t)n);
    if (fits) snprintf(out, 512, "%.*s", (int)dir.n - n, dir.p + n);
    return fits;
}

int vv_admin_bucket(struct vv_client *c, int32_t node, struct vv_admin_bucket *out, struct vv_error *e)
{
    struct DescribeLogDirsRequest rq;
    struct vv_reply r;
    *out = (struct vv_admin_bucket){0};
    VV_MSG_INIT(DescribeLogDirsRequest, &rq);
    int rc = vv_client_call(c, node, 35, &rq, &r, e); /* of no topics */
    if (rc) return rc;
    const struct DescribeLogDirsResponse *rs = r.msg;
    for (int32_t d = 0; d < rs->Results.n; d++) {
        take_url(rs->Results.v[d].LogDir, "remote://", out->url);
        if (take_url(rs->Results.v[d].LogDir, "migrate://", out->migrates_to)) out->failed = rs->Results.v[d].ErrorCode != 0;
    }
    vv_reply_release(&r);
    return VV_OK;
}

/* ---- money ---- */

bool vv_admin_price(const struct vv_args *a, double *price)
{
    const char *text = vv_arg(a, "price");
    char *end;
    *price = strtod(text ? text : VV_PRICE_DEFAULT, &end);
    if (!*end && end != (text ? text : VV_PRICE_DEFAULT) && *price >= 0 && *price < 1e9) return true;
    vv_cli_usage(a, "--price %s: not an amount of dollars", text);
    return false;
}

void vv_admin_cost_cell(struct vv_table *t, int64_t bytes, double price)
{
    vv_table_cell(t, "%.2f", (double)bytes / (double)(1 << 30) * price);
}
