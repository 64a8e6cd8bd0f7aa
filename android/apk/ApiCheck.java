import java.io.File;
import java.io.FileInputStream;
import java.util.Collections;
import java.util.HashSet;
import java.util.Set;
import org.codehaus.mojo.animal_sniffer.ClassListBuilder;
import org.codehaus.mojo.animal_sniffer.SignatureChecker;
import org.codehaus.mojo.animal_sniffer.logging.PrintWriterLogger;

/** Prints every use of something that an Android version does not have: {@code java ApiCheck.java SIGNATURE CLASSES...}. */
class ApiCheck {
  public static void main(String[] arguments) throws Exception {
    PrintWriterLogger logger = new PrintWriterLogger(System.out);
    ClassListBuilder own = new ClassListBuilder(logger);
    for (int i = 1; i < arguments.length; i++) {
      own.process(new File(arguments[i]));
    }
    Set<String> defined = new HashSet<>(own.getPackages());
    SignatureChecker checker = new SignatureChecker(new FileInputStream(arguments[0]), defined, logger);
    checker.setSourcePath(Collections.<File>emptyList());
    for (int i = 1; i < arguments.length; i++) {
      checker.process(new File(arguments[i]));
    }
    System.exit(checker.isSignatureBroken() ? 1 : 0);
  }
}
