/* keyring.h — the key-encryption keys of encrypted objects, from a file that only the operator and the broker may read.
 *
 * One key a line: `ID BASE64`, the id of 1 to 64 characters [A-Za-z0-9._-], the base64 of 32 bytes; empty lines and lines
 * that begin with # are skipped. New objects use the active key: the one that was named at open, else the last in the file. Rotation is a
 * new line; keys that objects in the bucket still name must stay. The file is read again when it changes and when a key is asked for that was
 * not there, so that no restart is needed; one that cannot be read or makes no sense then leaves the keys as they were.
 * Keys leave only as copies that the caller wipes; no message holds one. Any thread. */
#ifndef VARVE_TIERING_KEYRING_H
#define VARVE_TIERING_KEYRING_H
#include "blockcodec.h"
#include "varve/env.h"

#define VV_KEY_ID_MAX 65

struct vv_keyring;
/* E_CONFIG, E_NOENT, …: the file is not there, malformed, or readable by everybody. active: NULL = the last. */
int vv_keyring_open(struct vv_env *env, const char *path, const char *active, struct vv_keyring **out, struct vv_error *e);
void vv_keyring_free(struct vv_keyring *k);
int vv_keyring_active(struct vv_keyring *k, char id[VV_KEY_ID_MAX], uint8_t key[VV_DATA_KEY_BYTES], struct vv_error *e);
/* E_KEY: there is none of this id; k may be NULL, then there is none at all. */
int vv_keyring_find(struct vv_keyring *k, const char *id, uint8_t key[VV_DATA_KEY_BYTES], struct vv_error *e);
bool vv_key_id_valid(const char *p, size_t n);
#endif
