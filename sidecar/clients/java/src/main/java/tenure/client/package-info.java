/**
 * Locks, leader election and membership through the daemon {@code tenured}. Begin with {@link tenure.client.Client}.
 */
package tenure.client;
