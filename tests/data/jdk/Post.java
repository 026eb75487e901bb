import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;

/** Sends the same chat body several times with the JDK's own client, as it comes: it offers h2c each time. */
class Post {
    public static void main(String[] args) throws Exception {
        String text = "x".repeat(Integer.parseInt(args[1]));
        byte[] body = ("{\"model\":\"m\",\"user\":\"" + text + "\"}").getBytes(StandardCharsets.US_ASCII);
        HttpClient client = HttpClient.newHttpClient();
        for (int number = 2; number < args.length; number++) {
            boolean chunked = args[number].equals("chunked");
            HttpRequest request = HttpRequest.newBuilder(URI.create(args[0]))
                .header("Content-Type", "application/json")
                .header("Authorization", "Bearer test-key-0123456789")
                .POST(chunked
                    ? HttpRequest.BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(body))
                    : HttpRequest.BodyPublishers.ofByteArray(body))
                .build();
            HttpResponse<String> response = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(response.statusCode() + " " + response.version());
        }
    }
}
