package evcache.interop;

import com.netflix.evcache.EVCache;
import com.netflix.evcache.pool.EVCacheClient;
import com.netflix.evcache.pool.EVCacheClientPoolManager;
import com.netflix.evcache.pool.ServerGroup;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.json.JSONObject;

/** Clients of the requests, one for each pair of app and prefix. */
final class Caches {
    private final Map<List<String>, EVCache> caches = new HashMap<>();

    /** Return the client that a request names. A prefix of null is no prefix. It differs from an empty one. */
    EVCache find(JSONObject request) {
        String app = request.getString("app");
        String prefix = request.isNull("prefix") ? null : request.getString("prefix");
        return caches.computeIfAbsent(prefix == null ? List.of(app) : List.of(app, prefix), name -> build(app, prefix));
    }

    private static EVCache build(String app, String prefix) {
        EVCache.Builder builder = new EVCache.Builder().setAppName(app);
        if (prefix != null) {
            builder.setCachePrefix(prefix);
        }
        return builder.build();
    }

    /** Return one connection set of each server group of an app, by the name of the group. */
    @SuppressWarnings("deprecation") // the client offers no other way without Guice
    static Map<String, EVCacheClient> groups(String app) {
        EVCacheClientPoolManager manager = EVCacheClientPoolManager.getInstance();
        manager.initEVCache(app);
        Map<String, EVCacheClient> groups = new TreeMap<>();
        for (Map.Entry<ServerGroup, List<EVCacheClient>> group :
                manager.getEVCacheClientPool(app).getAllInstancesByZone().entrySet()) {
            groups.put(group.getKey().getName(), group.getValue().get(0));
        }
        return groups;
    }
}
