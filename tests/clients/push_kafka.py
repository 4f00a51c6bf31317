"""A client of Kafka (confluent-kafka, which is librdkafka) for tests/it/kafka.rs.

  push_kafka.py BROKER create TOPIC PARTITIONS
  push_kafka.py BROKER delete TOPIC
  push_kafka.py BROKER produce TOPIC COMPRESSION < records     a JSON object on each line: value or base64; key, headers,
                                                               partition, timestamp (ms) where they are wanted
  push_kafka.py BROKER consume TOPIC GROUP                      joins, and prints values until its input ends
  push_kafka.py BROKER committed TOPIC GROUP PARTITIONS         prints the offsets that were committed, -1001: none
  push_kafka.py BROKER reset TOPIC GROUP PARTITIONS OFFSET      commits this offset of all partitions
"""

import base64
import json
import sys
import threading
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic


def produce(broker, topic, compression):
    producer = Producer({"bootstrap.servers": broker, "compression.type": compression, "linger.ms": 20})
    failures = []
    for line in sys.stdin:
        record = json.loads(line)
        value = base64.b64decode(record["base64"]) if "base64" in record else record["value"].encode()
        more = {name: record[name] for name in ("key", "headers", "partition", "timestamp") if name in record}
        while True:
            try:
                producer.produce(topic, value, on_delivery=lambda error, _: error and failures.append(str(error)), **more)
                break
            except BufferError:
                producer.poll(0.1)
    left = producer.flush(60)
    if failures or left:
        sys.exit(f"{left} records were not sent: {failures[:3]}")


def consume(broker, topic, group):
    consumer = Consumer({
        "bootstrap.servers": broker,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "partition.assignment.strategy": "roundrobin,range",
    })
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    consumer.subscribe([topic], on_assign=lambda _, partitions: print(f"#assigned {len(partitions)}", flush=True))
    while not ended.is_set():
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            print(message.value().decode(), flush=True)
            consumer.commit(message, asynchronous=False)
    consumer.close()


def partitions_of(topic, count, offset=-1001):
    return [TopicPartition(topic, number, offset) for number in range(int(count))]


def main(broker, command, topic, *rest):
    admin = AdminClient({"bootstrap.servers": broker})
    if command == "create":
        for future in admin.create_topics([NewTopic(topic, int(rest[0]), 1)]).values():
            future.result(60)
    elif command == "delete":
        for future in admin.delete_topics([topic]).values():
            future.result(60)
        while topic in admin.list_topics(timeout=30).topics:
            time.sleep(0.05)
    elif command == "produce":
        produce(broker, topic, rest[0])
    elif command == "consume":
        consume(broker, topic, rest[0])
    else:
        consumer = Consumer({"bootstrap.servers": broker, "group.id": rest[0], "enable.auto.commit": False})
        while command == "reset":
            try:
                consumer.commit(offsets=partitions_of(topic, rest[1], int(rest[2])), asynchronous=False)
                break
            except KafkaException:
                # A group takes foreign commits once its last member is taken for dead.
                time.sleep(0.2)
        committed = consumer.committed(partitions_of(topic, rest[1]), timeout=30)
        print(json.dumps([one.offset for one in committed]))
        consumer.close()


main(*sys.argv[1:])
