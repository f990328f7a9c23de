package evcache.interop;

import com.netflix.evcache.EVCache;
import com.netflix.evcache.EVCacheLatch;
import com.netflix.evcache.EVCacheLatch.Policy;
import com.netflix.evcache.pool.EVCacheClient;
import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import net.spy.memcached.NodeLocator;
import org.json.JSONArray;
import org.json.JSONObject;

/** Operations that requests name. Each calls the method of the EVCache client that has its name. */
final class Operations {
    private static final int DEFAULT_TTL_SECONDS = 900;
    private static final int WRITE_TIMEOUT_SECONDS = 10;

    private final Caches caches;

    Operations(Caches caches) {
        this.caches = caches;
    }

    Object run(JSONObject request) throws Exception {
        String operation = request.getString("op");
        return switch (operation) {
            case "ping" -> JSONObject.NULL;
            case "locate" -> locate(request.getString("app"), strings(request, "keys"));
            case "get" -> Values.toJson(cache(request).get(key(request)));
            case "getAndTouch" -> Values.toJson(cache(request).getAndTouch(key(request), ttl(request)));
            case "getBulk" -> bulk(cache(request).getBulk(strings(request, "keys")));
            case "set" -> report(cache(request).set(key(request), value(request), ttl(request), policy(request)));
            case "setMany" -> setMany(cache(request), request);
            case "add" -> report(cache(request).add(key(request), value(request), null, ttl(request), policy(request)));
            case "addBoolean" -> cache(request).add(key(request), value(request), null, ttl(request));
            case "addMany" -> addMany(cache(request), request);
            case "replace" ->
                report(cache(request).replace(key(request), value(request), null, ttl(request), policy(request)));
            case "append" -> outcomes(Arrays.asList(cache(request).append(key(request), value(request), ttl(request))));
            case "appendOrAdd" ->
                report(cache(request).appendOrAdd(key(request), value(request), null, ttl(request), policy(request)));
            case "delete" -> report(cache(request).delete(key(request), policy(request)));
            case "touch" -> report(cache(request).touch(key(request), ttl(request), policy(request)));
            case "incr" ->
                cache(request).incr(key(request), request.getLong("by"), request.getLong("default"), ttl(request));
            case "decr" ->
                cache(request).decr(key(request), request.getLong("by"), request.getLong("default"), ttl(request));
            default -> throw new IllegalArgumentException("unknown operation " + operation);
        };
    }

    /** Return the node of each key in each group. The keys are used as they are, without prefix and hash. */
    private static JSONObject locate(String app, List<String> keys) {
        JSONObject located = new JSONObject();
        for (Map.Entry<String, EVCacheClient> group : Caches.groups(app).entrySet()) {
            NodeLocator locator = group.getValue().getNodeLocator();
            JSONArray nodes = new JSONArray();
            for (String key : keys) {
                InetSocketAddress address = (InetSocketAddress) locator.getPrimary(key).getSocketAddress();
                nodes.put(address.getAddress().getHostAddress() + ":" + address.getPort());
            }
            located.put(group.getKey(), nodes);
        }
        return located;
    }

    private static JSONArray setMany(EVCache cache, JSONObject request) throws Exception {
        JSONObject values = request.getJSONObject("values");
        List<EVCacheLatch> latches = new ArrayList<>();
        for (String key : values.keySet()) {
            Object value = Values.fromJson(values.getJSONObject(key));
            latches.add(cache.set(key, value, ttl(request), policy(request)));
        }
        return reports(latches);
    }

    /** Add the keys without a pause, so that a test can race with the loop. */
    private static JSONArray addMany(EVCache cache, JSONObject request) throws Exception {
        Object value = value(request);
        List<EVCacheLatch> latches = new ArrayList<>();
        for (String key : strings(request, "keys")) {
            latches.add(cache.add(key, value, null, ttl(request), policy(request)));
        }
        return reports(latches);
    }

    private static JSONArray reports(List<EVCacheLatch> latches) throws Exception {
        JSONArray reports = new JSONArray();
        for (EVCacheLatch latch : latches) {
            reports.put(report(latch));
        }
        return reports;
    }

    private static JSONObject bulk(Map<String, Object> values) {
        JSONObject json = new JSONObject();
        values.forEach((key, value) -> json.put(key, Values.toJson(value)));
        return json;
    }

    /** Wait for a write. The latch counts completed writes, so the result of each group is reported too. */
    private static JSONObject report(EVCacheLatch latch) throws Exception {
        boolean done = latch.await(WRITE_TIMEOUT_SECONDS, TimeUnit.SECONDS);
        JSONArray groups = outcomes(latch.getAllFutures());
        JSONObject report = new JSONObject().put("done", done).put("groups", groups);
        report.put("expected", latch.getExpectedCompleteCount()).put("completed", latch.getCompletedCount());
        return report.put("succeeded", latch.getSuccessCount()).put("failed", latch.getFailureCount());
    }

    private static JSONArray outcomes(List<Future<Boolean>> futures) throws Exception {
        JSONArray outcomes = new JSONArray();
        for (Future<Boolean> future : futures) {
            outcomes.put(future.get(WRITE_TIMEOUT_SECONDS, TimeUnit.SECONDS).booleanValue());
        }
        return outcomes;
    }

    private EVCache cache(JSONObject request) {
        return caches.find(request);
    }

    private static String key(JSONObject request) {
        return request.getString("key");
    }

    private static Object value(JSONObject request) {
        return Values.fromJson(request.getJSONObject("value"));
    }

    private static int ttl(JSONObject request) {
        return request.optInt("ttl", DEFAULT_TTL_SECONDS);
    }

    private static Policy policy(JSONObject request) {
        return Policy.valueOf(request.optString("policy", "ALL"));
    }

    private static List<String> strings(JSONObject request, String name) {
        List<String> values = new ArrayList<>();
        for (Object value : request.getJSONArray(name)) {
            values.add((String) value);
        }
        return values;
    }
}
