// Sends the message that clients.py describes with Go's net/smtp, as Alertmanager does.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/smtp"
	"os"
	"strings"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func dial(address string, config *tls.Config) *smtp.Client {
	if os.Getenv("IMPLICIT") == "1" {
		conn, err := tls.Dial("tcp", address, config)
		check(err)
		client, err := smtp.NewClient(conn, config.ServerName)
		check(err)
		return client
	}
	client, err := smtp.Dial(address)
	check(err)
	check(client.StartTLS(config))
	return client
}

func main() {
	pem, err := os.ReadFile(os.Getenv("CA"))
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	host := os.Getenv("HOST")
	client := dial(host+":"+os.Getenv("PORT"), &tls.Config{RootCAs: roots, ServerName: host})
	check(client.Auth(smtp.PlainAuth("", os.Getenv("MAIL_USER"), os.Getenv("MAIL_PASSWORD"), host)))
	check(client.Mail(os.Getenv("FROM")))
	to := os.Getenv("TO")
	for _, rcpt := range append(strings.Split(to, ","), os.Getenv("BCC")) {
		check(client.Rcpt(rcpt))
	}
	data, err := client.Data()
	check(err)
	_, err = fmt.Fprintf(data, "From: %s\r\nTo: %s\r\nSubject: %s\r\n\r\n%s\r\n", os.Getenv("FROM"), to,
		os.Getenv("SUBJECT"), os.Getenv("BODY"))
	check(err)
	check(data.Close())
	check(client.Quit())
}
