import java.io.File;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.generic.GenericRecordBuilder;
import org.apache.avro.message.BinaryMessageEncoder;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Publishes coupon events: created, issued to a user, used.
 *
 * <p>The key is the coupon's id, so that Kafka's default partitioner keeps a coupon's events together. The value is
 * Avro's single-object encoding, which is what BinaryMessageEncoder writes. An event may be sent again with the same
 * event_id: the ledger counts it as a repeat.
 */
public final class Producer {
  public static void main(String[] arguments) throws Exception {
    if (arguments.length != 4) {
      System.err.println("usage: Producer BOOTSTRAP_SERVERS SCHEMA_FILE TOPIC COUPONS");
      System.exit(2);
    }
    Schema schema = new Schema.Parser().parse(new File(arguments[1]));
    BinaryMessageEncoder<GenericRecord> encoder = new BinaryMessageEncoder<>(GenericData.get(), schema);
    Map<String, Future<RecordMetadata>> sent = new LinkedHashMap<>();
    Map<String, Object> settings =
        Map.of("bootstrap.servers", arguments[0], "acks", "all", "compression.type", "lz4");
    try (var producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
      for (int number = 1; number <= Integer.parseInt(arguments[3]); number++) {
        for (GenericRecord event : life(schema, "java-券-" + number, number)) {
          String key = event.get("coupon_id").toString();
          ByteBuffer value = encoder.encode(event);
          byte[] bytes = new byte[value.remaining()];
          value.get(bytes);
          var record = new ProducerRecord<>(arguments[2], key.getBytes(StandardCharsets.UTF_8), bytes);
          sent.put(event.get("event_id") + " " + key, producer.send(record));
        }
      }
      for (var entry : sent.entrySet()) {
        RecordMetadata at = entry.getValue().get(); // fails where it is not durable: send it again
        System.out.println(entry.getKey() + " " + at.partition() + " " + at.offset());
      }
    }
  }

  private static GenericRecord[] life(Schema schema, String coupon, int number) {
    Instant start = Instant.parse("2026-11-11T00:00:00.000001Z").plusSeconds(number);
    String user = "u-" + number;
    return new GenericRecord[] {
      event(schema, coupon, "created", start)
          .set("campaign_id", "double-11")
          .set("coupon_type", "threshold")
          .set("face_value_minor", 50_000_000_000L + number)
          .set("min_spend_minor", 12_000L)
          .set("currency", "CNY")
          .set("valid_until", micros(start.plus(30, ChronoUnit.DAYS)))
          .set("attributes", "{\"批次\": " + number + "}")
          .build(),
      event(schema, coupon, "issued", start.plusSeconds(60))
          .set("channel", "app")
          .set("user_id", user)
          .build(),
      event(schema, coupon, "used", start.plusSeconds(120))
          .set("user_id", user)
          .set("order_id", "o-" + number)
          .set("discount_minor", 500L * number)
          .build(),
    };
  }

  /** The fields that every event has; the others are null until they are set. */
  private static GenericRecordBuilder event(Schema schema, String coupon, String type, Instant occurredAt) {
    Schema types = schema.getField("type").schema();
    return new GenericRecordBuilder(schema)
        .set("event_id", coupon + "-" + type)
        .set("type", new GenericData.EnumSymbol(types, type))
        .set("occurred_at", micros(occurredAt))
        .set("source", "java-producer")
        .set("coupon_id", coupon);
  }

  private static long micros(Instant instant) {
    return ChronoUnit.MICROS.between(Instant.EPOCH, instant);
  }
}
