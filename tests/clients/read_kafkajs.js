// read_kafkajs.js NODE_DIR BOOTSTRAP TOPIC — reads a topic from offset 0 with kafkajs; see dataset.py for the hash.
// kafkajs has no consumer without a group: it joins one of its own that nobody else uses and never commits.
'use strict'
const crypto = require('crypto')
const path = require('path')
const [nodeDir, bootstrap, topic] = process.argv.slice(2)
const get = name => require(path.join(nodeDir, 'node_modules', name))
const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = get('kafkajs')
const lz4 = get('lz4js')
const fzstd = get('fzstd')
const PATIENCE_MS = 120000

const readOnly = decompress => () => ({
  compress: async () => { throw new Error('these tests only read') },
  decompress: async buffer => Buffer.from(decompress(buffer)),
})
CompressionCodecs[CompressionTypes.Snappy] = get('kafkajs-snappy')
CompressionCodecs[CompressionTypes.LZ4] = readOnly(buffer => lz4.decompress(buffer))
CompressionCodecs[CompressionTypes.ZSTD] = readOnly(buffer => fzstd.decompress(buffer))

function frame (message) {
  const key = message.key === null ? Buffer.alloc(0) : message.key
  const value = message.value === null ? Buffer.alloc(0) : message.value
  const out = Buffer.allocUnsafe(8 + 8 + 4 + key.length + 4 + value.length)
  out.writeBigInt64BE(BigInt(message.offset), 0)
  out.writeBigInt64BE(BigInt(message.timestamp), 8)
  out.writeInt32BE(message.key === null ? -1 : key.length, 16)
  key.copy(out, 20)
  out.writeInt32BE(message.value === null ? -1 : value.length, 20 + key.length)
  value.copy(out, 24 + key.length)
  return out
}

async function main () {
  const kafka = new Kafka({ clientId: 'read-kafkajs', brokers: [bootstrap], logLevel: logLevel.ERROR })
  const admin = kafka.admin()
  await admin.connect()
  const state = new Map()
  for (const p of await admin.fetchTopicOffsets(topic)) {
    state.set(p.partition, { end: BigInt(p.high), count: 0, hash: crypto.createHash('sha256') })
  }
  await admin.disconnect()
  let open = [...state.values()].filter(p => p.end > 0n).length
  const group = 'read-kafkajs-' + crypto.randomBytes(8).toString('hex')
  const consumer = kafka.consumer({ groupId: group, maxBytesPerPartition: 4 << 20, maxWaitTimeInMs: 100 })
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  await new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`the end was not reached in ${PATIENCE_MS} ms`)), PATIENCE_MS)
    const done = () => { clearTimeout(timer); resolve() }
    if (!open) return done()
    consumer.on(consumer.events.CRASH, e => reject(e.payload.error))
    consumer.run({
      autoCommit: false,
      eachBatchAutoResolve: true,
      eachBatch: async ({ batch }) => {
        const p = state.get(batch.partition)
        for (const message of batch.messages) {
          const offset = BigInt(message.offset)
          if (offset >= p.end) break
          p.hash.update(frame(message))
          p.count++
          if (offset === p.end - 1n && --open === 0) done()
        }
      },
    }).catch(reject)
  })
  await consumer.disconnect()
  for (const partition of [...state.keys()].sort((a, b) => a - b)) {
    const p = state.get(partition)
    console.log(`${partition} ${p.count} ${p.hash.digest('hex')}`)
  }
}

main().then(() => process.exit(0), e => { console.error(`read_kafkajs: ${e.stack}`); process.exit(1) })
