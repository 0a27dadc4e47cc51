// Sends the message that clients.py describes: one, or with POOL=n several over one connection.
const fs = require('fs');
const nodemailer = require('nodemailer');

const env = process.env;
const transport = nodemailer.createTransport({
	host: env.HOST,
	port: Number(env.PORT),
	secure: env.IMPLICIT === '1',
	requireTLS: env.IMPLICIT !== '1',
	auth: { user: env.MAIL_USER, pass: env.MAIL_PASSWORD },
	tls: { ca: fs.readFileSync(env.CA) },
	pool: Boolean(env.POOL),
	maxConnections: 1,
});

async function main() {
	for (let i = 0; i < Number(env.POOL || 1); i++) {
		const info = await transport.sendMail({
			from: env.FROM,
			to: env.TO.split(','),
			bcc: env.BCC,
			subject: env.SUBJECT,
			text: env.BODY,
		});
		console.log(info.response);
	}
	transport.close();
}

main().catch((error) => {
	console.error(error);
	process.exit(1);
});
