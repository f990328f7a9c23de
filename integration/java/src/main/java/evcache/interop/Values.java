package evcache.interop;

import java.util.ArrayList;
import java.util.Base64;
import java.util.Date;
import org.json.JSONArray;
import org.json.JSONObject;

/** Conversion of typed values between Java and JSON. JSON numbers would lose bits of a long or a double. */
final class Values {
    private Values() {}

    static Object fromJson(JSONObject json) {
        String type = json.getString("type");
        return switch (type) {
            case "Boolean" -> json.getBoolean("value");
            case "Byte" -> Byte.valueOf(json.getString("value"));
            case "Short" -> Short.valueOf(json.getString("value"));
            case "Integer" -> Integer.valueOf(json.getString("value"));
            case "Long" -> Long.valueOf(json.getString("value"));
            case "Float" -> Float.intBitsToFloat(Integer.parseUnsignedInt(json.getString("value"), 16));
            case "Double" -> Double.longBitsToDouble(Long.parseUnsignedLong(json.getString("value"), 16));
            case "String" -> json.getString("value");
            case "Date" -> new Date(Long.parseLong(json.getString("value")));
            case "byte[]" -> Base64.getDecoder().decode(json.getString("value"));
            case "Object" -> list(json.getJSONArray("value"));
            default -> throw new IllegalArgumentException("unknown type " + type);
        };
    }

    static JSONObject toJson(Object value) {
        if (value == null) {
            return typed("null", JSONObject.NULL);
        }
        if (value instanceof Float number) {
            return typed("Float", String.format("%08x", Float.floatToRawIntBits(number)));
        }
        if (value instanceof Double number) {
            return typed("Double", String.format("%016x", Double.doubleToRawLongBits(number)));
        }
        if (value instanceof Boolean || value instanceof String) {
            return typed(value.getClass().getSimpleName(), value);
        }
        if (value instanceof Number) {
            return typed(value.getClass().getSimpleName(), value.toString());
        }
        if (value instanceof Date date) {
            return typed("Date", Long.toString(date.getTime()));
        }
        if (value instanceof byte[] bytes) {
            return typed("byte[]", Base64.getEncoder().encodeToString(bytes));
        }
        if (value instanceof ArrayList<?> items) {
            return typed("Object", new JSONArray(items));
        }
        return typed(value.getClass().getName(), value.toString());
    }

    private static JSONObject typed(String type, Object value) {
        return new JSONObject().put("type", type).put("value", value);
    }

    private static ArrayList<String> list(JSONArray items) {
        ArrayList<String> values = new ArrayList<>();
        for (int i = 0; i < items.length(); i++) {
            values.add(items.getString(i));
        }
        return values;
    }
}
