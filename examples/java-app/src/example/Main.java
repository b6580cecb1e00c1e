package example;

/** Says hello. */
public final class Main {
    private Main() {}

    public static void main(String[] args) {
        System.out.println("hello from Java " + Runtime.version().feature());
    }
}
