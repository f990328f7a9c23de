package evcache.interop;

import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import org.json.JSONObject;

/** Program that calls the EVCache client: one JSON request per line of stdin, one JSON reply per line of stdout. */
public final class Main {
    private Main() {}

    public static void main(String[] arguments) throws IOException {
        // Only replies may reach stdout, so text that a library prints goes to stderr.
        PrintStream replies = new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.US_ASCII);
        System.setOut(System.err);
        System.setProperty("net.spy.log.LoggerImpl", "net.spy.memcached.compat.log.SLF4JLogger");

        Operations operations = new Operations(new Caches());
        BufferedReader requests = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = requests.readLine(); line != null; line = requests.readLine()) {
            replies.println(escape(answer(operations, new JSONObject(line)).toString()));
        }
        System.exit(0); // threads of the client keep the JVM alive otherwise
    }

    private static JSONObject answer(Operations operations, JSONObject request) {
        JSONObject reply = new JSONObject().put("id", request.getLong("id"));
        try {
            return reply.put("result", operations.run(request));
        } catch (Exception | LinkageError | StackOverflowError error) {
            Throwable root = error;
            while (root.getCause() != null && root.getCause() != root) {
                root = root.getCause();
            }
            JSONObject description = new JSONObject();
            description.put("class", error.getClass().getName()).put("message", String.valueOf(error.getMessage()));
            description.put("cause", root == error ? JSONObject.NULL : root.toString());
            return reply.put("error", description);
        }
    }

    /** Escape what is not ASCII, because an encoder replaces half a surrogate pair by a question mark. */
    private static String escape(String json) {
        StringBuilder escaped = new StringBuilder(json.length());
        for (int i = 0; i < json.length(); i++) {
            char c = json.charAt(i);
            if (c < 0x7f) {
                escaped.append(c);
            } else {
                escaped.append(String.format("\\u%04x", (int) c));
            }
        }
        return escaped.toString();
    }
}
