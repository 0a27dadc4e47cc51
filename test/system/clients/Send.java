import java.util.Properties;
import javax.mail.Message;
import javax.mail.Session;
import javax.mail.Transport;
import javax.mail.internet.InternetAddress;
import javax.mail.internet.MimeMessage;

/** Sends the message that clients.py describes with JavaMail; the trust store is given with -Djavax.net.ssl.trustStore. */
public class Send {
	public static void main(String[] args) throws Exception {
		boolean implicit = "1".equals(System.getenv("IMPLICIT"));
		Properties properties = new Properties();
		properties.put("mail.smtp.host", System.getenv("HOST"));
		properties.put("mail.smtp.port", System.getenv("PORT"));
		properties.put("mail.smtp.auth", "true");
		properties.put("mail.smtp.ssl.enable", String.valueOf(implicit));
		properties.put("mail.smtp.starttls.required", String.valueOf(!implicit));
		properties.put("mail.smtp.ssl.checkserveridentity", "true");
		properties.put("mail.smtp.allow8bitmime", "true");
		Session session = Session.getInstance(properties);
		MimeMessage message = new MimeMessage(session);
		message.setFrom(new InternetAddress(System.getenv("FROM")));
		message.setRecipients(Message.RecipientType.TO, InternetAddress.parse(System.getenv("TO")));
		message.setRecipients(Message.RecipientType.BCC, InternetAddress.parse(System.getenv("BCC")));
		message.setSubject(System.getenv("SUBJECT"), "UTF-8");
		message.setText(System.getenv("BODY"), "UTF-8");
		Transport.send(message, System.getenv("MAIL_USER"), System.getenv("MAIL_PASSWORD"));
	}
}
