import java.io.IOException;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Iterator;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ThreadLocalRandom;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;

/**
 * The HTTP API with Java 17, without dependencies.
 *
 * <p>URL=https://coupons.example.com PUBLISH_TOKEN=cl_… ASK_TOKEN=cl_… java Example.java
 *
 * <p>The JDK reads no JSON. This example takes single values out of answers with patterns; use your JSON library.
 */
public class Example {
    static final String URL = System.getenv("URL");
    static final String PUBLISHER = System.getenv("PUBLISH_TOKEN");
    static final String ASKER = System.getenv("ASK_TOKEN");
    static final String RUN =
            Optional.ofNullable(System.getenv("RUN")).orElse(String.valueOf(System.currentTimeMillis()));
    static final String COUPON = "java-" + RUN;
    static final Set<Integer> BUSY = Set.of(429, 502, 503);
    static final HttpClient CLIENT = HttpClient.newBuilder()
            .version(HttpClient.Version.HTTP_1_1)
            .connectTimeout(Duration.ofSeconds(10))
            .build();

    public static void main(String[] arguments) throws IOException, InterruptedException {
        // One event. The answer comes when it is durable.
        String one = publish(
                "application/json",
                event("created", "2026-11-11T00:00:00Z", "\"campaign_id\": \"k-1\", \"coupon_type\": \"cash\""));
        System.out.println("published one at " + text(one, "position"));

        // A batch, one event a line. The second one lacks its user: it is refused, the other is appended.
        String answer = publish(
                "application/x-ndjson",
                event("claimed", "2026-11-11T00:01:00Z", "\"user_id\": \"u-1\", \"channel\": \"app\"")
                        + event("used", "2026-11-11T00:02:00Z", "\"order_id\": \"o-1\", \"discount_minor\": 500"));
        System.out.println("appended " + number(answer, "appended") + ", refused " + number(answer, "refused"));
        printRefused(answer);

        // Whether the coupon can be used. Wait-For: ask once the events above were read.
        String check = call(request(PUBLISHER, "/v1/coupons/" + encoded(COUPON) + "/usable?user=u-1")
                .header("Wait-For", text(answer, "wait_for")));
        Matcher usable = Pattern.compile("\"usable\":\\s*(true|false),\\s*\"reasons\":\\s*\\[([^]]*)]").matcher(check);
        usable.find();
        System.out.println("usable: " + usable.group(1) + " " + usable.group(2).replace("\"", ""));

        // A question, page by page. All pages are of the same state.
        int rows = 0;
        for (String query = "page_size=2"; query != null; ) {
            String page = call(request(ASKER, "/v1/questions/coupons?" + query));
            rows += Pattern.compile("\"coupon_id\":").matcher(page).results().count();
            String cursor = text(page, "next");
            query = cursor == null ? null : "cursor=" + encoded(cursor);
        }
        System.out.println("coupons: " + rows + " rows");

        // The live feed, until one commit; then again from there. Events of alerts since then would come first.
        String last = follow("first", null);
        follow("resumed", last);
    }

    static String publish(String type, String body) throws IOException, InterruptedException {
        return call(request(PUBLISHER, "/v1/events").header("Content-Type", type).POST(BodyPublishers.ofString(body)));
    }

    static String event(String type, String at, String more) {
        return String.format(
                "{\"topic\": \"coupon.events\", \"type\": \"%s\", \"event_id\": \"%s-%1$s\", \"source\": \"shop\","
                        + " \"occurred_at\": \"%s\", \"coupon_id\": \"%2$s\", %s}%n",
                type, COUPON, at, more);
    }

    static HttpRequest.Builder request(String token, String path) {
        return HttpRequest.newBuilder(URI.create(URL + path))
                .header("Authorization", "Bearer " + token)
                .timeout(Duration.ofSeconds(60));
    }

    /** Send a request, and again while the service cannot take it. Repeating is harmless. */
    static String call(HttpRequest.Builder builder) throws IOException, InterruptedException {
        HttpRequest request = builder.build();
        long pauseMs = 200;
        for (int attempt = 1; ; attempt++) {
            long waitMs = (long) (pauseMs * ThreadLocalRandom.current().nextDouble(0.5, 1));
            try {
                HttpResponse<String> response = CLIENT.send(request, BodyHandlers.ofString());
                if (response.statusCode() < 400) {
                    return response.body();
                }
                if (!BUSY.contains(response.statusCode()) || attempt == 8) {
                    throw new IllegalStateException(response.statusCode() + ": " + text(response.body(), "detail"));
                }
                waitMs = Math.max(waitMs, 1000 * response.headers().firstValueAsLong("Retry-After").orElse(0));
            } catch (IOException lost) {
                if (attempt == 8) {
                    throw lost;
                }
            }
            Thread.sleep(waitMs);
            pauseMs = Math.min(2 * pauseMs, 5000);
        }
    }

    static void printRefused(String answer) {
        Pattern item = Pattern.compile("\"status\": \"refused\", \"event_id\": \"([^\"]*)\", \"problems\": \\[(.*?)]");
        Pattern problem = Pattern.compile("\"field\": \"([^\"]*)\", \"rule\": \"([^\"]*)\"");
        item.matcher(answer).results().forEach(refused -> problem.matcher(refused.group(2)).results()
                .forEach(p -> System.out.println("refused " + refused.group(1) + ": " + p.group(1) + " " + p.group(2))));
    }

    /** Follow the live feed after the event `last` until a commit. Returns the commit's id. */
    static String follow(String round, String last) throws IOException, InterruptedException {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(URL + "/v1/live"))
                .header("Authorization", "Bearer " + ASKER);
        if (last != null) {
            request.header("Last-Event-ID", last);
        }
        HttpResponse<Stream<String>> response = CLIENT.send(request.build(), BodyHandlers.ofLines());
        if (response.statusCode() >= 400) {
            throw new IllegalStateException("the feed answers " + response.statusCode());
        }
        try (Stream<String> lines = response.body()) {
            String kind = "";
            String id = "";
            for (Iterator<String> all = lines.iterator(); all.hasNext(); ) {
                String line = all.next();
                if (line.startsWith("event: ")) {
                    kind = line.substring(7);
                } else if (line.startsWith("id: ")) {
                    id = line.substring(4);
                } else if (line.startsWith("data: ") && kind.equals("commit")) {
                    System.out.println(round + ": commit " + number(line, "commits"));
                    return id;
                }
            }
        }
        throw new IllegalStateException("the feed ended without a commit");
    }

    static String text(String json, String name) {
        Matcher found = Pattern.compile("\"" + name + "\":\\s*\"([^\"]*)\"").matcher(json);
        return found.find() ? found.group(1) : null;
    }

    static String number(String json, String name) {
        Matcher found = Pattern.compile("\"" + name + "\":\\s*([0-9]+)").matcher(json);
        return found.find() ? found.group(1) : null;
    }

    static String encoded(String text) {
        return URLEncoder.encode(text, StandardCharsets.UTF_8).replace("+", "%20");
    }
}
