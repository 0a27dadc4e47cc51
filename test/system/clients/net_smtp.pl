use strict;
use warnings;
use Net::SMTP;

my $smtp = Net::SMTP->new(
	$ENV{HOST}, Port => $ENV{PORT}, Hello => 'perl.test', Timeout => 30,
	SSL => ($ENV{IMPLICIT} // '') eq '1', SSL_ca_file => $ENV{CA},
) or die "connect: $@";
$smtp->starttls(SSL_ca_file => $ENV{CA}) or die $smtp->message if ($ENV{IMPLICIT} // '') ne '1';
$smtp->auth($ENV{MAIL_USER}, $ENV{MAIL_PASSWORD}) or die $smtp->message;
$smtp->mail($ENV{FROM}, Bits => 8) or die $smtp->message;
$smtp->to(split(/,/, $ENV{TO}), $ENV{BCC}) or die $smtp->message;
$smtp->data or die $smtp->message;
$smtp->datasend("From: $ENV{FROM}\nTo: $ENV{TO}\nBcc: $ENV{BCC}\nSubject: $ENV{SUBJECT}\n\n$ENV{BODY}\n");
$smtp->dataend or die $smtp->message;
print $smtp->message;
$smtp->quit;
