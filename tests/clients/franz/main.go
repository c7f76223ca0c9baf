// franz reads a whole topic with franz-go and prints `partition count sha256` for each of its partitions.
//
// usage: franz BOOTSTRAP TOPIC
//
// The hash is the one defined in dataset.py: over offset, timestamp, key and value of every record, in order of offset.
// The end is the high watermark when the program starts; a read that cannot get there ends with an error.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"os"
	"sort"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const patience = 120 * time.Second

type partition struct {
	hash  hash.Hash
	count int64
	next  int64
	end   int64
}

// field appends a length and the bytes; null has the length -1.
func field(to []byte, bytes []byte) []byte {
	if bytes == nil {
		return binary.BigEndian.AppendUint32(to, 0xffffffff)
	}
	to = binary.BigEndian.AppendUint32(to, uint32(len(bytes)))
	return append(to, bytes...)
}

func (p *partition) add(r *kgo.Record, scratch []byte) []byte {
	scratch = binary.BigEndian.AppendUint64(scratch[:0], uint64(r.Offset))
	scratch = binary.BigEndian.AppendUint64(scratch, uint64(r.Timestamp.UnixMilli()))
	scratch = field(scratch, r.Key)
	scratch = field(scratch, r.Value)
	p.hash.Write(scratch)
	p.count++
	p.next = r.Offset + 1
	return scratch
}

// ends asks the broker for the partitions and the offset where each of them ends.
func ends(ctx context.Context, client *kgo.Client, topic string) (map[int32]*partition, error) {
	meta := kmsg.NewPtrMetadataRequest()
	one := kmsg.NewMetadataRequestTopic()
	one.Topic = &topic
	meta.Topics = append(meta.Topics, one)
	answer, err := meta.RequestWith(ctx, client)
	if err != nil {
		return nil, err
	}
	if len(answer.Topics) != 1 || answer.Topics[0].ErrorCode != 0 {
		return nil, fmt.Errorf("metadata of %s: error %d", topic, answer.Topics[0].ErrorCode)
	}
	list := kmsg.NewPtrListOffsetsRequest()
	list.ReplicaID = -1
	asked := kmsg.NewListOffsetsRequestTopic()
	asked.Topic = topic
	for _, p := range answer.Topics[0].Partitions {
		one := kmsg.NewListOffsetsRequestTopicPartition()
		one.Partition = p.Partition
		one.Timestamp = -1
		asked.Partitions = append(asked.Partitions, one)
	}
	list.Topics = append(list.Topics, asked)
	found := map[int32]*partition{}
	for _, shard := range client.RequestSharded(ctx, list) {
		if shard.Err != nil {
			return nil, shard.Err
		}
		for _, t := range shard.Resp.(*kmsg.ListOffsetsResponse).Topics {
			for _, p := range t.Partitions {
				if p.ErrorCode != 0 {
					return nil, fmt.Errorf("end of %s-%d: error %d", topic, p.Partition, p.ErrorCode)
				}
				found[p.Partition] = &partition{hash: sha256.New(), end: p.Offset}
			}
		}
	}
	return found, nil
}

func read(bootstrap, topic string) (map[int32]*partition, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	found, err := ends(ctx, client, topic)
	if err != nil {
		return nil, err
	}
	open := 0
	for _, p := range found {
		if p.end > 0 {
			open++
		}
	}
	var scratch []byte
	for open > 0 {
		fetches := client.PollFetches(ctx)
		if errs := fetches.Errors(); len(errs) > 0 {
			return nil, fmt.Errorf("%s-%d: %w", errs[0].Topic, errs[0].Partition, errs[0].Err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			p := found[r.Partition]
			if p.next >= p.end {
				return
			}
			scratch = p.add(r, scratch)
			if p.next >= p.end {
				open--
			}
		})
	}
	return found, nil
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: franz BOOTSTRAP TOPIC")
		os.Exit(2)
	}
	found, err := read(os.Args[1], os.Args[2])
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("the end was not reached in %v", patience)
		}
		fmt.Fprintln(os.Stderr, "franz:", err)
		os.Exit(1)
	}
	var order []int
	for p := range found {
		order = append(order, int(p))
	}
	sort.Ints(order)
	for _, p := range order {
		fmt.Printf("%d %d %x\n", p, found[int32(p)].count, found[int32(p)].hash.Sum(nil))
	}
}
