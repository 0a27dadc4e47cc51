<?php
require '/usr/share/php/libphp-phpmailer/autoload.php';

$mail = new PHPMailer\PHPMailer\PHPMailer(true);
$mail->isSMTP();
$mail->Host = getenv('HOST');
$mail->Port = (int)getenv('PORT');
$mail->SMTPAuth = true;
$mail->Username = getenv('MAIL_USER');
$mail->Password = getenv('MAIL_PASSWORD');
$mail->SMTPSecure = getenv('IMPLICIT') === '1' ? 'ssl' : 'tls';
$mail->SMTPOptions = ['ssl' => ['cafile' => getenv('CA')]];
$mail->CharSet = 'UTF-8';
$mail->Encoding = '8bit';
$mail->setFrom(getenv('FROM'));
foreach (explode(',', getenv('TO')) as $to) {
	$mail->addAddress($to);
}
$mail->addBCC(getenv('BCC'));
$mail->Subject = getenv('SUBJECT');
$mail->Body = getenv('BODY');
$mail->send();
echo 'queued as ', $mail->getSMTPInstance()->getLastTransactionID();
